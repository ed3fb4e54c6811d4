package main

import (
	"context"
	"errors"
	"fmt"
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
		copying  *nix.CopyError
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
	case errors.As(err, &copying) && copying.Denied:
		f := action.Fail(action.Denied, err, "give credentials that may write: in the input netrc-file, or as https://user:password@host in copy-to, from a secret")
		f.Detail = detail(err)
		return f
	case errors.As(err, &copying):
		f := action.Fail(action.Failed, err, "check copy-to, and whether the runner can reach it; the images are built, and a new run copies what is left")
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
func failures(built []nix.Built) error {
	var all []error
	shown := map[string]bool{}
	for _, b := range built {
		if b.Failure == nil || b.NotReached {
			continue
		}
		drv, what := b.Failure.Derivation, ""
		if drv != b.DrvPath {
			what = fmt.Sprintf("it needs %s: ", drvName(drv))
		}
		f := action.Fail(action.Failed, fmt.Errorf("%s was not built: %s%s", b.Name, what, b.Failure.Reason),
			"nix log %s shows all that its builder printed; nix build .#%s -L repeats it on your machine", drv, b.Attr)
		if len(b.Failure.Log) == 0 {
			f.Hint = fmt.Sprintf("nix build .#%s -L repeats it on your machine", b.Attr)
		} else if !shown[drv] {
			shown[drv] = true
			f.Detail = fmt.Sprintf("last lines of %s:\n%s", drv, strings.Join(b.Failure.Log, "\n"))
		}
		all = append(all, f)
	}
	return errors.Join(all...)
}
