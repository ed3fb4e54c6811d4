package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/upload"
)

// explain gives an error its exit code and its hint. The end of the context is left to action.Main.
func explain(err error) error {
	var (
		document *handoff.DocumentError
		eval     *nix.EvalError
		remote   *nix.RemoteError
		command  *nix.CommandError
		store    *substituter.StoreDirError
		denied   *substituter.DeniedError
		request  *substituter.RequestError
		status   *substituter.StatusError
		corrupt  *substituter.CorruptError
		changed  *upload.ChangedError
		lost     *upload.LostError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &document):
		return explainDocument(document)
	case errors.Is(err, nix.ErrNotInstalled):
		return action.Fail(action.Failed, err, "install Nix 2.8 or newer on the runner, or add its bin folder to PATH")
	case errors.As(err, &eval):
		f := action.Fail(action.Failed, err, "the derivation is not in this machine's store, and the flake does not give it: build where nix-cache-check ran, or check out the plan's commit")
		f.Detail = eval.Message
		return f
	case errors.As(err, &remote):
		f := action.Fail(action.Failed, err, "on this runner, `ssh HOST nix-daemon --version` has to work without a question; NIX_SSHOPTS has ssh's options, and the user there has to be one of Nix's trusted-users")
		f.Detail = detail(err)
		return f
	case errors.As(err, &command):
		f := action.Fail(action.Failed, err, "Nix's own message is above; log-level: debug shows all it prints")
		f.Detail = command.Message()
		return f
	case errors.As(err, &store):
		return action.Fail(action.BadInput, err, "give a cache in copy-to that is for %s", store.Ours)
	case errors.As(err, &denied):
		return action.Fail(action.Denied, err, "give credentials that may read and write: in the input netrc-file, or as https://user:password@host in copy-to, from a secret")
	case errors.As(err, &request), errors.As(err, &status):
		return action.Fail(action.Failed, err, "run it again when the cache answers; the images are built, and a new run copies what is left")
	case errors.As(err, &corrupt):
		return action.Fail(action.Failed, err, "check copy-to: what is there is no binary cache, or a damaged one")
	case errors.As(err, &lost):
		return action.Fail(action.Failed, err, "run it again; if it stays so, the cache drops what is written to it")
	case errors.As(err, &changed):
		return action.Fail(action.Failed, err, "the store on this machine is damaged: nix-store --verify --check-contents --repair mends it")
	}
	return err
}

func detail(err error) string {
	var command *nix.CommandError
	if errors.As(err, &command) {
		return command.Message()
	}
	return ""
}

func explainDocument(err *handoff.DocumentError) error {
	switch {
	case errors.Is(err, handoff.ErrVersion):
		return action.Fail(action.Conflict, err, "run nix-cache-check again: all steps of a run are to be of one release")
	case errors.Is(err, handoff.ErrChanged), errors.Is(err, handoff.ErrMismatch):
		return action.Fail(action.Conflict, err, "run nix-cache-check again, and hand on what it writes as it is")
	}
	return action.Fail(action.BadInput, err, "the input plan is the output plan or plan-json of nix-cache-check")
}

// failures says of each image that could not be built why. A derivation on which several depend shows its log once.
func failures(flake handoff.Flake, built []nix.Built) error {
	var all []error
	shown := map[string]bool{}
	for _, b := range built {
		if b.Failure == nil || b.NotReached {
			continue
		}
		drv, what := b.Failure.Derivation, "was not built"
		switch {
		case b.Failure.Kind == handoff.FailureImage:
			what = "was built and cannot be used"
		case drv != b.DrvPath:
			what += fmt.Sprintf(": it needs %s", drvName(drv))
		}
		f := action.Fail(action.Failed, fmt.Errorf("%s %s: %s", b.Name, what, b.Failure.Reason), "%s", hint(b.Failure, repeat(flake, b.Attr)))
		if len(b.Failure.Log) > 0 && !shown[drv] {
			shown[drv] = true
			f.Detail = fmt.Sprintf("last lines of %s:\n%s", drv, strings.Join(b.Failure.Log, "\n"))
		}
		all = append(all, f)
	}
	return errors.Join(all...)
}

// hint says what to do about a failure; again is the command that repeats it.
func hint(f *handoff.Failure, again string) string {
	switch f.Kind {
	case handoff.FailureHash:
		return fmt.Sprintf("if the download was meant to change, write the hash that was got in the place of the other; %s -L repeats it on your machine", again)
	case handoff.FailureDisk:
		return "free disk space on the runner, with nix-collect-garbage for one, and run it again: what was built is kept"
	case handoff.FailureSystem:
		return "name a machine for it in the input builders, or let nix-cache-check plan the systems of this runner alone"
	case handoff.FailureNetwork:
		return "run it again when the cache or the remote builder answers: what was built is kept"
	case handoff.FailureImage:
		if strings.Contains(f.Reason, "not reproducible") {
			return "make that layer's build reproducible; until then, delete this image from the cache that has another build of it"
		}
		return fmt.Sprintf("an image is a docker-archive, a stream script, the JSON of nix2container or an OCI layout; %s makes it on your machine", again)
	}
	if otherwise.MatchString(f.Reason) {
		return "the flake is another than the one that was planned: run nix-cache-check again, or check out the plan's commit"
	}
	log := fmt.Sprintf("%s -L repeats it on your machine", again)
	if len(f.Log) > 0 {
		log = fmt.Sprintf("nix log %s shows all that its builder printed; %s -L repeats it on your machine", f.Derivation, again)
	}
	if f.Kind == handoff.FailureTimeout {
		return fmt.Sprintf("timeout and max-silent-time in nix.conf give it more time; %s", log)
	}
	return log
}

// otherwise is what *nix.ChangedError says, of which a Failure has the words alone.
var otherwise = regexp.MustCompile(` is .* now, the plan has `)

// repeat is the command that builds an attribute: in a checkout, or of the pinned source when that is to be had everywhere.
func repeat(flake handoff.Flake, attr string) string {
	if local := regexp.MustCompile(`^(\.|/|path:|git\+file:)`); flake.Locked != "" && !local.MatchString(flake.Locked) {
		return fmt.Sprintf("nix build '%s#%s'", flake.Locked, attr)
	}
	return "nix build .#" + attr
}
