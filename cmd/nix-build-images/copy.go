package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
)

// copyImages copies the images that are there to the cache, and marks those that it then serves.
func copyImages(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs, result *handoff.BuildResult) error {
	limit := env.Duration("copy-timeout")
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end after %s", limit))
	defer stop()
	var copied []*handoff.BuiltImage
	var outs []string
	for i := range result.Images {
		if img := &result.Images[i]; img.State == handoff.BuildBuilt || img.State == handoff.BuildSubstituted {
			copied, outs = append(copied, img), append(outs, img.OutPath)
		}
	}
	if len(outs) == 0 {
		return nil
	}
	copyErr := n.Copy(ctx, outs, nix.CopyOptions{To: in.copyTo.String(), SecretKey: in.key})
	if ctx.Err() != nil {
		return copyEnd(ctx, limit, result.CopyTo)
	}
	// Whatever Nix says: only what is read back from the cache is in it. And what the cache says is plainer than what Nix does.
	verdicts, err := reread(ctx, env, n, in, outs)
	if err != nil {
		return errors.Join(explain(copyErr), explain(err))
	}
	var untrusted, other error
	for i, v := range verdicts {
		copied[i].Copied = v.State == handoff.StateCached
		switch {
		case v.State == handoff.StateCached:
		case v.State == handoff.StateUntrusted && in.key == "":
			env.Warnf("%s is in the cache, but nothing will take it from there: %s", copied[i].Name, v.Reason)
		case v.State == handoff.StateUntrusted:
			untrusted = errors.Join(untrusted, unsigned(copied[i].Name, v.Reason))
		case v.Err != nil:
			other = cmpErr(other, explain(fmt.Errorf("read back from %s: %w", v.Failed, v.Err)))
		case copyErr == nil:
			other = errors.Join(other, incomplete(copied[i].Name, v.Reason))
		}
	}
	if ctx.Err() != nil {
		return copyEnd(ctx, limit, result.CopyTo)
	}
	var refused *nix.CopyError
	if copyErr != nil && other != nil && !(errors.As(copyErr, &refused) && refused.Denied) {
		return errors.Join(other, untrusted) // the same cause, in plainer words
	}
	return errors.Join(explain(copyErr), untrusted, other)
}

// copyEnd is the error of a copy that was cut off: by its own time limit, by that of the step, or by a person.
func copyEnd(ctx context.Context, limit fmt.Stringer, to string) error {
	if errors.Is(ctx.Err(), context.Canceled) || context.Cause(ctx) == context.DeadlineExceeded {
		return fmt.Errorf("copy to %s: %w", to, ctx.Err())
	}
	return action.Fail(action.TimedOut, fmt.Errorf("copy to %s: no end after %s", to, limit),
		"what was copied is kept: run it again, or give a longer copy-timeout")
}

// reread asks the cache for the images' closures: each path is to be there, signed by our key or by one this Nix trusts.
func reread(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs, outs []string) ([]substituter.Verdict, error) {
	dir, err := storepath.ParseDir(n.Settings.StoreDir)
	if err != nil {
		return nil, err
	}
	keys := in.public
	for _, text := range n.Settings.TrustedPublicKeys {
		key, err := narinfo.ParsePublicKey(text)
		if err != nil {
			env.Warnf("a key in trusted-public-keys of the installed Nix is left out: %v", err)
			continue
		}
		keys = append(keys, key)
	}
	netrc, err := substituter.LoadNetrc(n.Settings.NetrcFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		env.Debugf("netrc file of the installed Nix: %v", err)
	}
	set, err := substituter.Open(ctx, []string{in.copyTo.String()}, substituter.Options{
		StoreDir: dir, Keys: keys, Netrc: netrc, UserAgent: "flakeship/" + action.Version, Debugf: env.Debugf})
	if err != nil {
		return nil, err
	}
	var paths []storepath.Path
	for _, out := range outs {
		path, err := dir.Parse(out)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return set.Check(ctx, paths), nil
}

// cmpErr is a, or b when there is no a.
func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
