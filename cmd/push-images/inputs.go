package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/push"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/transport"
)

// inputs are what the step was given.
type inputs struct {
	commit   string
	previous []string       // digests of the BuildResults
	parts    []handoff.Part // of plans that were cut into several
	missing  []string       // parts that are not among them
	images   []push.Image
	options  push.Options
	partial  bool // a PushResult that is joined lacks something
	dryRun   bool
	layout   *push.Layout // nil: none
	unsent   string       // why nothing is sent; empty: it is
	alone    bool         // no registry gets the images, the layout does
	attached []string     // kinds of attachments that images have
}

// readInputs checks what was given and reports every problem, before anything is sent.
func readInputs(env *action.Env) (inputs, error) {
	var in inputs
	var problems []error
	bad := func(err error, hint string) {
		for _, one := range action.Split(err) {
			problems = append(problems, action.Fail(action.BadInput, one, "%s", hint))
		}
	}
	results, err := readDocuments[handoff.BuildResult](env, handoff.KindBuildResult)
	problems = append(problems, explainAll(env, err))
	in.commit = env.Getenv("GITHUB_SHA")
	for _, r := range results {
		in.commit = r.Commit
		in.previous = append(in.previous, r.Digest)
	}
	in.parts = handoff.Parts(results)
	in.images, err = builtImages(results)
	bad(err, "give BuildResults of different systems or shards, each once")
	for _, line := range env.List("image") {
		i, err := parseImage(line)
		bad(err, "an image is name=path or name:tag=path, and the path is what Nix built")
		in.images = append(in.images, i)
	}
	joined, err := readDocuments[handoff.PushResult](env, handoff.KindPushResult)
	problems = append(problems, explainAll(env, err))
	for _, r := range joined {
		in.commit = r.Commit
		in.previous = append(in.previous, r.Digest)
		in.parts = append(in.parts, r.Parts...)
	}
	in.missing = handoff.MissingParts(in.parts)
	if len(joined) > 0 && len(results) > 0 {
		bad(errors.New("both build-result and push-result are given"), "push what was built in one job for each system, and join their push-results in another")
	}
	if env.Text("build-result") == "" && env.Text("push-result") == "" && len(env.List("image")) == 0 {
		bad(errors.New("neither build-result nor image is given"), "give the path that nix-build-images has as its output build-result, or images as name=path")
	}

	o := &in.options
	in.dryRun = env.Bool("dry-run")
	if dir := env.Text("oci-layout"); dir != "" {
		if in.layout, err = push.OpenLayout(dir); err != nil {
			err = fmt.Errorf("input oci-layout: %w", err)
		}
		bad(err, "give a folder that is empty, or not there, or an OCI layout")
	}
	in.unsent = unsent(env)
	in.alone = env.Text("registry") == "" && env.Text("oci-layout") != ""
	switch prefix := env.Text("registry"); {
	case in.alone:
		o.Registry = layoutHost
	case prefix == "" && in.unsent != "": // it may be as secret as the credentials
	case prefix == "":
		bad(errors.New("input registry is required, or oci-layout"), "give host and path, such as registry.example.org/team or docker.io/team")
	default:
		if o.Registry, err = registry.Prefix(prefix); err != nil {
			err = fmt.Errorf("input registry is %w", err)
		}
		bad(err, "give host and path, such as registry.example.org/team or docker.io/team, without https:// and without tag")
	}
	pushed, err := pushedImages(joined, o.Registry)
	bad(err, "give the outputs push-result of jobs that pushed to this registry, each for one system")
	in.images = append(in.images, pushed...)
	in.partial = !whole(joined)
	o.Compression, o.Level = push.Compression(env.Text("compression")), env.Int("compression-level")
	o.Exec = env.Bool("exec")
	o.Format, o.NoLearn, o.Verify = push.Format(env.Text("format")), env.Bool("no-learn"), env.Bool("verify-reuse")
	if o.Format == push.Docker && len(env.List("annotations")) > 0 {
		bad(errors.New("input annotations: docker's format has none"), "leave out one of the inputs annotations and format")
	}
	if o.Format == push.Docker && o.Compression == push.Zstd {
		bad(errors.New("input compression is zstd, which docker's format does not have"), "leave the input compression out, or the input format")
	}
	if err := o.Compression.CheckLevel(o.Level); err != nil {
		bad(fmt.Errorf("input compression-level: %w", err), "leave the input compression-level out")
	}
	names := templates(env, in.commit, time.Now())
	o.Tags, err = names.expand("tags", env.List("tags"))
	bad(err, "give the tag as plain text, or run the step where the runner says what is built")
	if given := env.List("learn-tags"); given != nil {
		o.LearnTags, err = names.expand("learn-tags", given)
		bad(err, "give the tag as plain text, or run the step where the runner says what is built")
	} else if err == nil {
		// A tag that names the commit has never been pushed: asking for it is a request for nothing.
		lasting := slices.DeleteFunc(env.List("tags"), func(tag string) bool { return strings.Contains(tag, "sha}") })
		o.LearnTags, _ = names.expand("tags", lasting) // some of those that were expanded above
		o.LearnTags = append([]string{}, o.LearnTags...)
	}
	if len(in.missing) > 0 || in.partial {
		o.Tags = nil // as when an image fails: what a tag like main stands for is a whole plan
	}
	o.Annotations, err = annotations(env, names)
	bad(err, "an annotation is key=value, such as org.opencontainers.image.source=https://git.example.org/team/shop")
	attester, err := readAttester(env, results)
	bad(err, "attest takes provenance and sbom; a key is what cosign generate-key-pair writes, with its password in COSIGN_PASSWORD, or an ECDSA key as PKCS #8 in PEM form")
	if attester != nil {
		o.Attach, o.Check = attester.attachments, attester.key != nil
		in.attached = []string{signatures, attestations}
	}
	o.Temp = env.Getenv("RUNNER_TEMP")
	o.Debugf = env.Debugf
	o.Client, err = in.openRegistry(env)
	bad(err, "see push-images --help")
	return in, errors.Join(problems...)
}

// document is a pointer to a D that is a hand-over document.
type document[D any] interface {
	*D
	handoff.Document
}

// readDocuments reads the hand-over documents of an input, which must be of one commit.
func readDocuments[D any, P document[D]](env *action.Env, kind handoff.Kind) ([]P, error) {
	given, err := env.Documents(string(kind))
	if err != nil {
		return nil, action.Fail(action.BadInput, err, "give a path, or the JSON as %s wrote it", kind.Writer())
	}
	var results []P
	var errs []error
	for _, one := range given {
		r := P(new(D))
		if err := handoff.Load(one, r); err != nil {
			errs = append(errs, err)
			continue
		}
		results = append(results, r)
	}
	if len(errs) == 0 {
		errs = append(errs, handoff.SameSource(results))
	}
	return results, errors.Join(errs...)
}

// builtImages lists the images of all results. Results of shards may both list an image; the one that has it counts.
func builtImages(results []*handoff.BuildResult) ([]push.Image, error) {
	var images []push.Image
	at := map[string]int{} // index in images, by name and system
	for _, r := range results {
		for _, b := range r.Images {
			i := push.Image{Name: b.Name, Tag: b.Tag, ImageTag: b.ImageTag, System: b.System}
			switch b.State {
			case handoff.BuildSkipped:
				i.Present, i.Digest = true, b.Digest
			case handoff.BuildFailed:
				i.Missing = "it was not built"
				if b.Failure != nil {
					i.Missing = "it was not built: " + b.Failure.Reason
				}
			default:
				i.Path, i.Store, i.LayerTags = cmp.Or(b.File, r.Store.Root+b.OutPath), r.Store, b.LayerTags
			}
			key := b.Name + " " + b.System
			n, twice := at[key]
			switch {
			case !twice:
				at[key] = len(images)
				images = append(images, i)
			case images[n].Tag != i.Tag:
				return nil, fmt.Errorf("image %s is in the BuildResults twice for %s, as %s and as %s", b.Name, b.System, images[n].Tag, i.Tag)
			case images[n].Missing != "":
				images[n] = i
			}
		}
	}
	return images, nil
}

// storeHash finds the hash of the store path a file is, or is in.
var storeHash = regexp.MustCompile(`/nix/store/([0-9a-z]{32})-`)

// nixHash is a tag that identifies what it names.
var nixHash = regexp.MustCompile(`^[0-9a-z]{32}$`)

// parseImage reads one line of the input image.
func parseImage(line string) (push.Image, error) {
	name, path, ok := strings.Cut(line, "=")
	name, path = strings.TrimSpace(name), strings.TrimSpace(path)
	if !ok || name == "" || path == "" {
		return push.Image{}, fmt.Errorf("input image: %q", line)
	}
	name, tag, _ := strings.Cut(name, ":")
	file, err := filepath.Abs(path)
	if err != nil {
		return push.Image{}, fmt.Errorf("input image: %s: %w", name, err)
	}
	if resolved, err := filepath.EvalSymlinks(file); err == nil {
		file = resolved // ./result: the store path says which hash it has
	}
	if _, err := os.Stat(file); err != nil {
		return push.Image{}, fmt.Errorf("input image: %s: %w", name, err)
	}
	i := push.Image{Name: name, Tag: tag, Path: file, Store: image.StoreOf(file)}
	if found := storeHash.FindStringSubmatch(file); found != nil && !nixHash.MatchString(tag) {
		i.Tag, i.ImageTag = found[1], tag
	}
	if i.Tag == "" {
		return push.Image{}, fmt.Errorf("input image: %s is not in a Nix store, so it has no hash for a tag; give %s:TAG=%s", path, name, path)
	}
	return i, nil
}

// layoutHost stands for a registry where there is none but the layout.
const layoutHost = "oci-layout.invalid"

// openRegistry returns a client for the inputs' credentials, hosts and certificates, or for the layout.
func (in *inputs) openRegistry(env *action.Env) (*registry.Client, error) {
	o := registry.Options{
		Username: env.Text("registry-username"),
		Password: env.Text("registry-password"),
		Push:     true,
		Jobs:     env.Int("jobs"),
		Insecure: env.List("insecure-registries"),
	}
	if o.Jobs < 1 {
		return nil, fmt.Errorf("input jobs is %d: at least one request has to be in flight", o.Jobs)
	}
	if in.unsent != "" {
		return nil, nil
	}
	if (o.Username == "") != (o.Password == "") {
		return nil, errors.New("registry-username and registry-password are given both or not at all")
	}
	if in.alone {
		o.Transport, o.Anonymous = in.layout, true
	} else {
		base := transport.Pool(o.Jobs + 2)
		if file := env.Text("ca-file"); file != "" {
			pool, err := transport.Certificates(file)
			if err != nil {
				return nil, fmt.Errorf("input ca-file: %w", err)
			}
			base.TLSClientConfig = &tls.Config{RootCAs: pool}
		}
		o.Transport = transport.New(transport.Options{
			UserAgent: "flakeship/" + action.Version,
			Base:      base,
			RetryPost: true,    // a POST opens an upload or asks for a token
			Buffer:    1 << 20, // manifests and configs whose answers break off are asked for again
			Debugf:    env.Debugf,
		})
	}
	if in.dryRun {
		o.Transport = push.DryRun(o.Transport)
	}
	return registry.Open(o), nil
}
