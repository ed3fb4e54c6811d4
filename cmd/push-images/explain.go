package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/push"
	"github.com/flakeship/flakeship/internal/registry"
)

// explainPush gives each thing that went wrong its exit code and hint. What concerns the registry as a whole is told once,
// however many images it kept out.
func explainPush(env *action.Env, err error) error {
	type obstacle struct {
		first *push.ImageError
		count int
	}
	var obstacles []*obstacle
	byKey := map[string]*obstacle{}
	var all []error
	for _, one := range action.Split(err) {
		failed := new(push.ImageError)
		if !errors.As(one, &failed) {
			all = append(all, explain(env, one))
			continue
		}
		key := kind(failed)
		o := byKey[key]
		if o == nil {
			o = &obstacle{first: failed}
			byKey[key] = o
			obstacles = append(obstacles, o)
		}
		o.count++
	}
	for _, o := range obstacles {
		err := error(o.first)
		if o.count > 1 {
			err = fmt.Errorf("push %s and %d more: %w", o.first.Name, o.count-1, o.first.Err)
		}
		all = append(all, explain(env, err))
	}
	return errors.Join(all...)
}

// kind is the same for errors with one cause.
func kind(err *push.ImageError) string {
	var (
		denied      *registry.DeniedError
		unreachable *registry.UnreachableError
		credentials *registry.CredentialsError
		status      *registry.StatusError
		missing     *push.MissingError
		stale       *push.StaleError
		unsigned    *unsignedError
	)
	switch {
	case errors.As(err, &unsigned):
		return "unsigned"
	case errors.As(err, &denied):
		return fmt.Sprint("denied ", denied.Status)
	case errors.As(err, &unreachable):
		return "unreachable"
	case errors.As(err, &credentials):
		return "credentials"
	case errors.As(err, &missing):
		return "missing"
	case errors.As(err, &stale):
		return "stale"
	case errors.As(err, &status):
		return fmt.Sprint("status ", status.Status)
	}
	return "image " + err.Name
}

// explainParts speaks of the parts of a plan that are not here. One part alone is what a job that builds one pushes; of several, the
// others were to be there as well.
func explainParts(env *action.Env, in inputs) error {
	if len(in.missing) == 0 {
		return nil
	}
	if len(in.parts) == 1 {
		env.Infof("part %d/%d of the plan: join what the jobs for all parts pushed with the input push-result, then deploy", in.parts[0].Shard, in.parts[0].Shards)
		return nil
	}
	what := "a part of the plan is missing"
	if len(in.missing) > 1 {
		what = fmt.Sprintf("%d parts of the plan are missing", len(in.missing))
	}
	return action.Fail(action.Failed, fmt.Errorf("%s: %s", what, strings.Join(in.missing, ", ")),
		"run nix-build-images with shard: %s and push-images after it, and give the result as well; what is here was pushed", in.missing[0])
}

// explain gives an error its exit code and its hint. The end of the context is left to action.Main.
func explain(env *action.Env, err error) error {
	var (
		done     *action.Failure
		bad      *push.NameError
		tag      *push.TagError
		stale    *push.StaleError
		missing  *push.MissingError
		no       *image.NotImageError
		claim    *push.ClaimError
		digest   *image.DigestError
		script   *image.ScriptError
		document *handoff.DocumentError
		unsigned *unsignedError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &done):
		return err
	case errors.As(err, &document):
		return explainDocument(err, document)
	case errors.As(err, &bad):
		return action.Fail(action.BadInput, err, "an image's name is a repository below the prefix, in lower case; see the flake's imageName and imageTag, and the input tags")
	case errors.As(err, &unsigned):
		return action.Fail(action.Conflict, err, "run nix-cache-check once without registry: then the image is built or fetched, and what is checked is signed")
	case errors.As(err, &tag):
		return action.Fail(action.Conflict, err, "the registry keeps this tag from moving; leave it out of the input tags, or let it move")
	case errors.As(err, &stale):
		return action.Fail(action.Conflict, err, "run nix-cache-check again, with the same registry: it will plan the image anew")
	case errors.As(err, &missing):
		return action.Fail(action.Failed, err, "nix-build-images says why; images that were built are pushed, the tags stay where they were")
	case errors.As(err, &no):
		return action.Fail(action.BadInput, err, "an image is what dockerTools.buildImage, buildLayeredImage, streamLayeredImage or nix2container.buildImage builds, or an OCI layout; "+
			"other scripts that print an image are run with the input exec")
	case errors.As(err, &script):
		return action.Fail(action.Failed, err, "run it by hand to see what it says: %s > image.tar", script.Path)
	case errors.As(err, &claim):
		return action.Fail(action.Failed, err, "run it with no-learn: true, and find out who wrote that image")
	case errors.As(err, &digest):
		return action.Fail(action.Failed, err, "the store paths are not those the image was made from: rebuild it with nix build --rebuild, or repair the store with nix-store --verify --check-contents --repair")
	case errors.Is(err, syscall.ENOSPC):
		return action.Fail(action.Failed, err, "make room in the runner's temporary folder: each layer that is sent is there in compressed form")
	}
	if f := explainRegistry(env, err); f != nil {
		return f
	}
	if errors.Is(err, fs.ErrNotExist) {
		return action.Fail(action.Failed, err, "run nix-cache-check and nix-build-images again on this runner: the store path is not here, or was collected; of a stream image that is signed each layer is read, which nix-build-images fetches with signed: true")
	}
	return err
}

func explainDocument(err error, d *handoff.DocumentError) error {
	switch {
	case errors.Is(err, handoff.ErrUnreadable):
		return action.Fail(action.BadInput, err, "give the output %s of %s, a path or the JSON itself", d.Kind, d.Kind.Writer())
	case errors.Is(err, handoff.ErrVersion):
		return action.Fail(action.Conflict, err, "use the same version of all steps, and run %s again", d.Kind.Writer())
	case errors.Is(err, handoff.ErrMismatch):
		return action.Fail(action.Conflict, err, "run nix-cache-check and nix-build-images again, all on one commit")
	}
	return action.Fail(action.Conflict, err, "run %s again, and pass on what it writes as it is", d.Kind.Writer())
}

func explainRegistry(env *action.Env, err error) *action.Failure {
	var (
		denied      *registry.DeniedError
		status      *registry.StatusError
		unreachable *registry.UnreachableError
		credentials *registry.CredentialsError
		authority   x509.UnknownAuthorityError
		outdated    x509.CertificateInvalidError
		other       x509.HostnameError
	)
	switch {
	case errors.As(err, &denied):
		return action.Fail(action.Denied, err, "%s", token(env, denied))
	case errors.As(err, &credentials):
		return action.Fail(action.Denied, err, "mend the docker configuration, or give registry-username and registry-password")
	case errors.As(err, &authority):
		return action.Fail(action.Failed, err, "give the certificate of the registry's authority in the input ca-file")
	case errors.As(err, &outdated):
		return action.Fail(action.Failed, err, "have the registry's certificate renewed, and look at the runner's clock")
	case errors.As(err, &other):
		return action.Fail(action.Failed, err, "the registry's certificate is of another host: name that one in the input registry, or get a certificate for %s", other.Host)
	case errors.Is(err, http.ErrSchemeMismatch):
		return action.Fail(action.Failed, err, "the registry speaks plain http: name it in the input insecure-registries, or give it a certificate")
	case errors.As(err, &unreachable):
		return action.Fail(action.Failed, err, "check the input registry, and whether the runner can reach %s", unreachable.Host)
	case errors.As(err, &status) && (status.Status < 300 || strings.HasSuffix(status.URL, "/v2/")):
		return action.Fail(action.Failed, err, "check the input registry: host and port of a container registry")
	case errors.As(err, &status) && status.Status == http.StatusRequestEntityTooLarge:
		return action.Fail(action.Failed, err, "a proxy in front of the registry limits the size of a request: raise it, in nginx client_max_body_size 0")
	case errors.As(err, &status):
		return action.Fail(action.Failed, err, "run it again when the registry answers; what was sent is kept")
	}
	return nil
}

// token says what credentials a registry wants, which differs by where the job runs: the tokens jobs get by themselves do
// not always write packages.
func token(env *action.Env, denied *registry.DeniedError) string {
	given := env.Text("registry-password") != ""
	switch {
	case denied.Host == "ghcr.io":
		return "a job's own token writes packages only where the workflow has permissions: packages: write and the package's settings let its repository write: " +
			"see to both, or give a token with the scope write:packages in registry-password"
	case env.Getenv("GITEA_ACTIONS") == "true":
		return fmt.Sprintf("Gitea's own job token cannot write packages, whatever permissions the workflow has: make an access token with the scope write:package "+
			"for a user who may write to %s, store it as a secret, and give it in registry-password with the user in registry-username", denied.Repository)
	case denied.Anonymous:
		return fmt.Sprintf("give registry-username and registry-password, or log in to %s on the runner first", denied.Host)
	case given:
		return fmt.Sprintf("the token in registry-password has to be valid and may have to be granted write access to %s", denied.Repository)
	}
	return fmt.Sprintf("the runner's docker configuration has credentials for %s that do not do: log in again, or give registry-username and registry-password", denied.Host)
}

// explainAll explains each of joined errors.
func explainAll(env *action.Env, err error) error {
	var all []error
	for _, one := range action.Split(err) {
		all = append(all, explain(env, one))
	}
	return errors.Join(all...)
}
