package main

import (
	"context"
	"errors"
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
	in.options.Done = newTable(env, in.images).print
	pushed, pushErr := push.Images(ctx, in.images, in.options)
	if errors.As(pushErr, new(*push.NameError)) {
		return explainAll(env, pushErr) // nothing was begun
	}
	result := &handoff.PushResult{
		Header:   handoff.Header{Commit: in.commit, Previous: in.previous},
		Registry: in.options.Registry,
		Complete: pushErr == nil && len(in.missing) == 0,
		Images:   pushed,
	}
	if result.Images == nil {
		result.Images = []handoff.PushedImage{}
	}
	return errors.Join(explainPush(env, pushErr), explainShards(in.missing), write(env, result, time.Since(start)))
}
