package rollout

import (
	"context"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
)

// failed returns an error when targets failed, having added what explains each.
func (w *waiter) failed(ctx context.Context) error {
	var bad []Outcome
	for _, t := range w.all {
		switch {
		case t.result.Rollout == handoff.RolloutFailed:
			bad = append(bad, w.explained(ctx, t))
		case !t.done:
			t.result.Message = w.mask("not waited for, because another object failed: " + t.verdict.text)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &FailedError{bad}
}

// timedOut makes results of what is still awaited.
func (w *waiter) timedOut(ctx context.Context) error {
	var waiting []Outcome
	for _, t := range w.pending() {
		t.result = Result{Rollout: handoff.RolloutTimeout, Seconds: time.Since(t.target.At).Seconds(), Message: w.awaited(t)}
		t.blamed = w.slow(t)
		waiting = append(waiting, w.explained(ctx, t))
	}
	return &TimeoutError{waiting}
}

// awaited is what a pending target waits for.
func (w *waiter) awaited(t *tracked) string {
	text := t.verdict.text
	if refused, _ := t.stuck(); refused != "" {
		text = refused
	}
	if slow := w.slow(t); slow != nil {
		text += "; " + slow.text
	}
	return text
}

// slowEvery is how often is told what is still awaited.
const slowEvery = 10 * time.Second

func (w *waiter) tellSlow(now time.Time) {
	if w.options.Slow == nil || now.Sub(w.told) < slowEvery || !w.firstFailure.IsZero() {
		return
	}
	w.told = now
	var all []Outcome
	for _, t := range w.pending() {
		all = append(all, Outcome{t.target, Result{Seconds: now.Sub(t.target.At).Seconds(), Message: w.mask(w.awaited(t))}})
	}
	if len(all) > 0 {
		w.options.Slow(all)
	}
}

func (w *waiter) mask(text string) string {
	if w.options.Mask == nil {
		return text
	}
	return w.options.Mask(text)
}
