package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/push"
)

func run(ctx context.Context, env *action.Env) error {
	start := time.Now()
	in, err := readInputs(env)
	if err != nil {
		return err
	}
	report := newReport(env, in)
	if in.unsent != "" {
		return report.write(leaveOut(in, in.unsent), time.Since(start))
	}
	in.options.Done = report.done
	in.options.Progress = new(push.Progress)
	stop := showProgress(env, in.options.Progress)
	pushed, pushErr := push.Images(ctx, in.images, in.options)
	if in.layout != nil && !in.alone && !in.dryRun && pushErr == nil {
		pushErr = in.layout.Copy(ctx, in.options.Client, pushed, in.attached...)
	}
	stop()
	if errors.As(pushErr, new(*push.NameError)) && pushed == nil {
		return explainAll(env, pushErr) // nothing was begun
	}
	result := &handoff.PushResult{
		Header:   handoff.Header{Commit: in.commit, Previous: in.previous},
		Registry: in.options.Registry,
		Complete: pushErr == nil && !in.partial && !in.dryRun && !in.alone,
		Parts:    in.parts,
		DryRun:   in.dryRun,
		Images:   pushed,
	}
	if in.alone {
		result.Registry = ""
		for i := range pushed {
			pushed[i].Repository = strings.TrimPrefix(pushed[i].Repository, layoutHost+"/")
		}
	}
	if result.Images == nil {
		result.Images = []handoff.PushedImage{}
	}
	pushErr = denied(env, result, pushErr)
	if in.partial && pushErr == nil && result.Skipped == "" {
		pushErr = action.Fail(action.Failed, errors.New("a PushResult that is joined is not complete"),
			"see what the jobs that pushed say; what is there was joined, the tags stay where they were")
	}
	return errors.Join(explainPush(env, pushErr), explainParts(env, in), report.write(result, time.Since(start)))
}
