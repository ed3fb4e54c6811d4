package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/substituter"
)

// inputs are what the step was given.
type inputs struct {
	plan    handoff.Plan // of the shard
	shard   int          // 0: the plan is in one part
	options nix.BuildOptions
	netrc   string             // path; empty: Nix's own
	copyTo  *url.URL           // nil: nothing is copied
	key     string             // secret key, name:base64; empty: what is copied is not signed
	secret  *narinfo.SecretKey // the same, parsed
	lacking []string           // caches whose paths are not copied
}

// readInputs checks what was given. Every problem is reported, before anything is built.
func readInputs(env *action.Env) (*inputs, error) {
	in := &inputs{options: nix.BuildOptions{
		KeepGoing: env.Bool("keep-going"),
		MaxJobs:   env.Text("max-jobs"),
		Cores:     env.Text("cores"),
		Builders:  env.Text("builders"),
		Store:     env.Text("remote-store"),
		LogLines:  env.Int("log-lines"),
	}}
	var problems []error
	bad := func(err error, hint string) {
		if err != nil {
			problems = append(problems, action.Fail(action.BadInput, err, "%s", hint))
		}
	}
	if err := handoff.Load(env.Text("plan"), &in.plan); err != nil {
		problems = append(problems, explain(err))
	} else {
		bad(in.takeShard(env.Text("shard")), "the input shards of nix-cache-check says into how many parts the plan is cut; give each of them to a run of its own")
	}
	if jobs := in.options.MaxJobs; jobs != "" && jobs != "auto" {
		if n, err := strconv.Atoi(jobs); err != nil || n < 0 {
			bad(fmt.Errorf("input max-jobs is %q", jobs), "give a number, or auto for one job per core")
		}
	}
	if env.Int("cores") < 0 {
		bad(fmt.Errorf("input cores is %s", in.options.Cores), "give a number; 0 is all cores of the machine")
	}
	if in.options.LogLines < 0 {
		bad(fmt.Errorf("input log-lines is %d", in.options.LogLines), "give a number; 0 shows nothing of the log")
	}
	if in.netrc = env.Text("netrc-file"); in.netrc != "" {
		if _, err := substituter.LoadNetrc(in.netrc); err != nil {
			bad(fmt.Errorf("input netrc-file: %w", err), "give the path of a file with lines like: machine cache.example.org login ci password ...")
		}
	}
	if store := in.options.Store; store != "" && !strings.Contains(store, "://") {
		bad(fmt.Errorf("input remote-store is %q: it is no URL", store), "give a store such as ssh-ng://builder.example.org")
	}
	var err error
	in.copyTo, err = cacheURL(env)
	bad(err, "give a URL such as https://cache.example.org or file:///var/cache/nix")
	in.key, err = signingKey(env)
	bad(err, "nix-store --generate-binary-cache-key makes one: give its text in signing-key, or the path of its file in signing-key-file")
	switch {
	case in.key != "" && in.copyTo == nil && err == nil && env.Text("copy-to") == "":
		bad(errors.New("a signing key is given, but nothing is copied"), "give the cache in the input copy-to, or leave the key out")
	case in.key != "":
		secret, _ := narinfo.ParseSecretKey(in.key) // signingKey parsed it
		in.secret = &secret
	}
	if in.copyTo != nil && in.key == "" && env.Fork() != "" {
		env.LeaveOut("the copy to %s: no signing key is given, and a cache is not to hold what nobody answers for", nix.Redacted(in.copyTo))
		in.copyTo = nil
	}
	in.lacking, err = in.missingFrom(env.List("copy-missing-from"))
	bad(err, "give URLs of caches from which those who fetch from copy-to fetch as well, or none to copy everything")
	return in, errors.Join(problems...)
}

// takeShard leaves of the plan what is in one part of it, given as i/n.
func (in *inputs) takeShard(text string) error {
	first, second, _ := strings.Cut(text, "/")
	i, err1 := strconv.Atoi(first)
	n, err2 := strconv.Atoi(second)
	parts := max(in.plan.Shards, 1)
	switch {
	case err1 != nil || err2 != nil || i < 1 || i > n:
		return fmt.Errorf("input shard is %q, not a part such as 2/4", text)
	case n == 1 && !slices.ContainsFunc(in.plan.Images, func(img handoff.PlannedImage) bool { return img.Build || img.Push }):
		return nil // of nothing there are no parts: the digests that the plan has are wanted
	case n != parts:
		return fmt.Errorf("input shard is %q, but the plan is cut into %s", text, action.Count(parts, "part"))
	case n > 1:
		in.shard = i
	}
	in.plan.Images = slices.DeleteFunc(in.plan.Images, func(img handoff.PlannedImage) bool { return max(img.Shard, 1) != i })
	return nil
}

// cacheURL reads copy-to; nil when there is none.
func cacheURL(env *action.Env) (*url.URL, error) {
	text := env.Text("copy-to")
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("input copy-to is no URL") // which part is wrong may be the password
	}
	if password, ok := u.User.Password(); ok {
		env.Mask(password)
	}
	at := nix.Redacted(u)
	if u.Query().Has("secret-key") {
		return nil, fmt.Errorf("input copy-to is %q with the parameter secret-key: the key has an input of its own", at)
	}
	if toStore(u) {
		if u.Host == "" {
			return nil, fmt.Errorf("input copy-to is %q: it names no host", at)
		}
		return u, nil
	}
	if wrong := new(substituter.URLError); errors.As(substituter.ValidateWritable(text), &wrong) {
		return nil, fmt.Errorf("input copy-to is %q: %s", at, wrong.Reason)
	}
	return u, nil
}

// toStore says whether a URL is of a store that is no cache of files: another machine's, behind ssh.
func toStore(u *url.URL) bool { return u.Scheme == "ssh-ng" || u.Scheme == "ssh" }

// anyCache takes caches of all kinds: who asks them is not known yet.
var anyCache = substituter.Options{Ask: (*nix.Nix)(nil).PathInfo}

// missingFrom are the caches of copy-missing-from, or those of the plan, without the one that is copied to.
func (in *inputs) missingFrom(given []string) ([]string, error) {
	if len(given) == 1 && given[0] == "none" || in.copyTo == nil {
		return nil, nil
	}
	var urls []string
	for _, text := range given {
		if err := substituter.Validate([]string{text}, anyCache); err != nil {
			return nil, fmt.Errorf("input copy-missing-from: %w", err)
		}
		urls = append(urls, text)
	}
	if given == nil {
		urls = slices.Clone(in.plan.Substituters)
	}
	return slices.DeleteFunc(urls, func(text string) bool { return sameCache(text, in.copyTo.String()) }), nil
}

// signingKey reads the key from either of its inputs.
func signingKey(env *action.Env) (string, error) {
	text, file := env.Text("signing-key"), env.Text("signing-key-file")
	if text != "" && file != "" {
		return "", errors.New("both signing-key and signing-key-file are given")
	}
	name := "signing-key"
	if file != "" {
		name = "signing-key-file"
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("input signing-key-file: %w", err)
		}
		text = strings.TrimSpace(string(b))
		env.Mask(text)
	}
	if text == "" && file == "" {
		return "", nil
	}
	if _, err := narinfo.ParseSecretKey(text); err != nil {
		return "", fmt.Errorf("input %s: %w", name, err)
	}
	return text, nil
}

// targets are the images of the plan that there is something to do for, without those of which a file was fetched.
func (in *inputs) targets(files map[string]string) []nix.Target {
	var targets []nix.Target
	for _, img := range in.plan.Images {
		if !img.Build && !img.Push || files[img.OutPath] != "" {
			continue
		}
		targets = append(targets, nix.Target{Fetch: !img.Build, Image: nix.Image{
			Attr: img.Attr, System: img.System, Name: img.Name, Tag: img.Tag, ImageTag: img.ImageTag,
			Family: img.Family, DrvPath: img.DrvPath, OutPath: img.OutPath,
		}})
	}
	return targets
}

// undecided are the images that the plan has no answer for.
func (in *inputs) undecided() []string {
	var names []string
	for _, img := range in.plan.Images {
		if img.State == handoff.StateError && !img.Build {
			names = append(names, img.Name)
		}
	}
	return names
}

// storeDir is the folder that the plan's store paths are in.
func (in *inputs) storeDir() string {
	for _, img := range in.plan.Images {
		if m := storePath.FindStringSubmatch(img.DrvPath); m != nil {
			return m[1]
		}
	}
	return "/nix/store"
}

var storePath = regexp.MustCompile(`^(/.+)/[0-9a-z]{32}-[^/]+$`)
