package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/upload"
)

// settle marks the images that were copied, and returns what kept the others out: each cause once, with the images it concerns.
func (c *copies) settle(ctx context.Context, env *action.Env, result *handoff.BuildResult) error {
	if c == nil {
		return nil
	}
	result.CopyTo = c.to
	type obstacle struct {
		err    error
		images []string
	}
	var obstacles []*obstacle
	byKind := map[string]*obstacle{}
	for i := range result.Images {
		img := &result.Images[i]
		err, tried := c.failed[img.OutPath]
		if !tried || img.State == handoff.BuildFailed || img.State == handoff.BuildSkipped {
			continue
		}
		if img.Copied = err == nil; err == nil {
			continue
		}
		err = gravest(err)
		if unsigned := new(upload.UnsignedError); errors.As(err, &unsigned) {
			env.Warnf("%s is in the cache, but nothing will take it from there: %v", img.Name, unsigned)
			continue
		}
		o := byKind[kind(err)]
		if o == nil {
			o = &obstacle{err: err}
			byKind[kind(err)] = o
			obstacles = append(obstacles, o)
		}
		o.images = append(o.images, img.Name)
	}
	if !c.store {
		env.Infof("copy: %s", c.line())
	}
	var all []error
	for _, o := range obstacles {
		if late := new(lateError); errors.As(o.err, &late) {
			all = append(all, action.Fail(action.TimedOut, fmt.Errorf("copy to %s: %w", c.to, late), "what was copied is kept: run it again, or give a longer copy-timeout"))
			continue
		}
		if ctx.Err() != nil && errors.Is(o.err, ctx.Err()) {
			all = append(all, fmt.Errorf("copy to %s: %w", c.to, ctx.Err()))
			continue
		}
		all = append(all, explain(&copyError{c.to, o.images, o.err}))
	}
	return errors.Join(all...)
}

// line says what the copy was.
func (c *copies) line() string {
	s := fmt.Sprintf("%s written, %s", action.Count(c.stats.Written, "path"), action.Size(c.stats.Bytes))
	if c.stats.Signed > 0 {
		s += fmt.Sprintf("; %d signed anew", c.stats.Signed)
	}
	if c.stats.Left > 0 {
		s += fmt.Sprintf("; %d left to caches that serve them", c.stats.Left)
	}
	return s + fmt.Sprintf("; over %.1f s after the last build", c.took.Seconds())
}

// copyError is what keeps images out of the cache.
type copyError struct {
	to     string
	images []string
	err    error
}

func (e *copyError) Error() string {
	return fmt.Sprintf("copy to %s: %s: %v", e.to, action.Names(e.images), e.err)
}
func (e *copyError) Unwrap() error { return e.err }

// gravest is one of the errors of a closure: the one that says most of why it is not there.
func gravest(err error) error {
	all := action.Split(err)
	for _, one := range all {
		if !errors.As(one, new(*upload.UnsignedError)) {
			return one
		}
	}
	return all[0]
}

// kind is the same for errors with one cause.
func kind(err error) string {
	var (
		denied  *substituter.DeniedError
		request *substituter.RequestError
		status  *substituter.StatusError
		changed *upload.ChangedError
		late    *lateError
		command *nix.CommandError
	)
	switch {
	case errors.As(err, &denied):
		return fmt.Sprint("denied ", denied.Status)
	case errors.As(err, &request):
		return "request"
	case errors.As(err, &status):
		return fmt.Sprint("status ", status.Status)
	case errors.As(err, &late), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "late"
	case errors.As(err, &command):
		return "command"
	case errors.As(err, &changed):
		return err.Error()
	}
	return err.Error()
}
