package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/substituter"
)

// obstacle is one thing that keeps images from being decided.
type obstacle struct {
	key    string
	err    error
	images []string // names; attributes, when they do not evaluate
	built  bool     // the policy for failing caches has these images built
}

// obstacles gathers what is in the way: one for each cache and for the registry, however many images each of them concerns.
func obstacles(rows []*row) []*obstacle {
	var all []*obstacle
	add := func(r *row, o obstacle) {
		for _, old := range all {
			if old.key == o.key {
				old.images = append(old.images, r.Name)
				return
			}
		}
		o.images = []string{r.Name}
		all = append(all, &o)
	}
	for _, r := range rows {
		switch {
		case r.evalErr != nil: // see explainEvaluation
		case isBadName(r.registryErr):
			add(r, obstacle{key: "name " + r.Name, err: r.registryErr})
		case r.registryErr != nil:
			add(r, obstacle{key: fmt.Sprintf("registry %T", r.registryErr), err: r.registryErr}) // there is one registry
		case r.cacheErr != nil:
			add(r, obstacle{key: "cache " + r.failedCache, err: r.cacheErr, built: r.Build})
		}
	}
	return all
}

// failures returns what keeps the plan from being carried out, and warns of what on-cache-error: build gets around.
func failures(env *action.Env, rows []*row) []error {
	var evals []*nix.EvalError
	for _, r := range rows {
		if r.evalErr != nil {
			evals = append(evals, r.evalErr)
		}
	}
	all := explainEvaluation(evals)
	for _, o := range obstacles(rows) {
		switch {
		case o.built:
			env.Warnf("%s to be built although a cache may have it (%s): %v", action.Count(len(o.images), "image"), action.Names(o.images), o.err)
		default:
			all = append(all, explain(fmt.Errorf("%s not decided (%s): %w", action.Count(len(o.images), "image"), action.Names(o.images), o.err)))
		}
	}
	return all
}

// explainAll explains each of joined errors.
func explainAll(err error) error {
	var all []error
	var evals []*nix.EvalError
	for _, one := range action.Split(err) {
		if eval := new(nix.EvalError); errors.As(one, &eval) {
			evals = append(evals, eval)
			continue
		}
		all = append(all, explain(one))
	}
	return errors.Join(append(explainEvaluation(evals), all...)...)
}

// explainEvaluation says once what several attributes have in common: one broken input breaks every image.
func explainEvaluation(evals []*nix.EvalError) []error {
	var all []error
	said := map[string]bool{}
	for i, eval := range evals {
		// By cause: the message of a Nix since 2.19 has a trace, in which each attribute is another.
		if said[eval.Cause()] {
			continue
		}
		said[eval.Cause()] = true
		var attrs []string
		for _, other := range evals[i:] {
			if other.Cause() == eval.Cause() {
				attrs = append(attrs, other.Attr)
			}
		}
		f := explainNix(eval)
		if len(attrs) > 1 {
			f.Err = fmt.Errorf("%d attributes do not evaluate (%s): %s", len(attrs), action.Names(attrs), eval.Cause())
			f.Hint = fmt.Sprintf("mend what they have in common; nix eval .#%s.drvPath says the same", eval.Attr)
		}
		all = append(all, f)
	}
	return all
}

// explain gives an error its exit code and its hint. The end of the context is left to action.Main.
func explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if f := explainCache(err); f != nil { // before Nix, which is asked for some of them
		return f
	}
	if f := explainNix(err); f != nil {
		return f
	}
	if f := explainRegistry(err); f != nil {
		return f
	}
	return err
}

func explainNix(err error) *action.Failure {
	var (
		eval      *nix.EvalError
		duplicate *nix.DuplicateError
		glob      *nix.GlobError
		command   *nix.CommandError
	)
	switch {
	case errors.Is(err, nix.ErrNotInstalled):
		return action.Fail(action.Failed, err, "install Nix 2.8 or newer on the runner, or add its bin folder to PATH")
	case errors.As(err, &eval):
		f := action.Fail(action.Failed, err, "nix flake show says the same on your machine; see the input flake")
		if eval.Attr != "" {
			f.Hint = fmt.Sprintf("mend the attribute, or leave it out with the line !%s in the input attributes; nix eval .#%s.drvPath says the same", eval.Attr, eval.Attr)
		}
		f.Detail = eval.Message
		return f
	case errors.As(err, &duplicate):
		return action.Fail(action.BadInput, err, "give one of them another imageName, or leave it out with the line !%s in the input attributes", duplicate.Attrs[1])
	case errors.As(err, &glob):
		return action.Fail(action.BadInput, err, "give names of packages, or globs such as *-image, one per line")
	case errors.As(err, &command):
		f := action.Fail(action.Failed, err, "Nix's own message is above; log-level: debug shows all it prints")
		f.Detail = command.Message()
		return f
	}
	return nil
}

func explainCache(err error) *action.Failure {
	const policy = "with on-cache-error: build the images are built instead"
	var (
		store   *substituter.StoreDirError
		denied  *substituter.DeniedError
		status  *substituter.StatusError
		request *substituter.RequestError
		corrupt *substituter.CorruptError
		remote  *substituter.StoreError
	)
	switch {
	case errors.As(err, &remote) && strings.Contains(err.Error(), "don't know how to open"):
		return action.Fail(action.BadInput, err, "give URLs that the installed Nix knows in the input substituters")
	case errors.As(err, &remote):
		return action.Fail(action.Failed, err, "nix path-info --store '%s' says more on the runner; a host asked by ssh has to be known and let the runner in without a password; %s",
			remote.Store, policy)
	case errors.As(err, &store):
		return action.Fail(action.BadInput, err, "leave this cache out of the input substituters: nothing in it fits")
	case errors.As(err, &denied) && denied.Status == 407:
		return action.Fail(action.Denied, err, "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY")
	case errors.As(err, &denied):
		return action.Fail(action.Denied, err, "give the input netrc-file a file with the line: machine %s login USER password TOKEN", hostOf(denied.URL))
	case errors.As(err, &status), errors.As(err, &request):
		return action.Fail(action.Failed, err, "run it again when the cache answers; %s", policy)
	case errors.As(err, &corrupt):
		return action.Fail(action.Failed, err, "remove this file from the cache and copy the path to it again; %s", policy)
	}
	return nil
}

func explainRegistry(err error) *action.Failure {
	var (
		denied      *registry.DeniedError
		status      *registry.StatusError
		unreachable *registry.UnreachableError
		credentials *registry.CredentialsError
	)
	switch {
	case isBadName(err):
		return action.Fail(action.BadInput, err, "an imageName is a repository below the prefix: lower case, digits, and . _ - / between them")
	case errors.As(err, &denied):
		return action.Fail(action.Denied, err, "give registry-username and registry-password, or log in to %s first; reading %s is enough", denied.Host, denied.Repository)
	case errors.As(err, &credentials):
		return action.Fail(action.Denied, err, "mend the docker configuration, or give registry-username and registry-password")
	case errors.As(err, &unreachable):
		return action.Fail(action.Failed, err, "check the input registry, and whether the runner can reach %s", unreachable.Host)
	case errors.As(err, &status):
		return action.Fail(action.Failed, err, "run it again when the registry answers")
	}
	return nil
}

// isBadName says whether an image cannot be in any registry under its name.
func isBadName(err error) bool {
	var bad *name.ErrBadName
	return errors.As(err, &bad)
}

func hostOf(text string) string {
	if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
		return u.Hostname()
	}
	return "HOST"
}
