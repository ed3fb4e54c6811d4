package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/push"
)

// showProgress tells how far a push is until stop is called: as bars on a terminal, elsewhere as a line every ten seconds.
func showProgress(env *action.Env, p *push.Progress) (stop func()) {
	if terminal, ok := env.Stderr.(*os.File); ok && !env.InRunner() && term.IsTerminal(int(terminal.Fd())) {
		return showBars(env, terminal, p)
	}
	return every(interval, func() {
		env.Infof("push: %d of %s in; %s of %s compressed, %s of %s sent", p.ImagesDone.Load(), action.Count(int(p.Images.Load()), "image"),
			action.Size(p.Compressed.Load()), action.Size(p.Compress.Load()), action.Size(p.Sent.Load()), action.Size(p.Send.Load()))
	})
}

// interval is the time between two lines. A variable, so that tests need not wait.
var interval = 10 * time.Second

// every calls tell again and again until stop is called, and not after.
func every(interval time.Duration, tell func()) (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				tell()
			}
		}
	}()
	return func() {
		close(quit)
		<-gone
	}
}

// showBars draws three bars below what is logged; they vanish in the end.
func showBars(env *action.Env, terminal *os.File, p *push.Progress) (stop func()) {
	bars := mpb.New(mpb.WithOutput(terminal), mpb.WithWidth(40))
	restore := env.Through(bars)
	type bar struct {
		*mpb.Bar
		total, done *atomic.Int64
	}
	var all []bar
	for _, b := range []struct {
		name        string
		total, done *atomic.Int64
		say         func(int64) string
	}{
		{"images", &p.Images, &p.ImagesDone, func(n int64) string { return fmt.Sprint(n) }},
		{"compress", &p.Compress, &p.Compressed, action.Size},
		{"send", &p.Send, &p.Sent, action.Size},
	} {
		text := func(decor.Statistics) string { return " " + b.say(b.done.Load()) + " of " + b.say(b.total.Load()) }
		all = append(all, bar{bars.AddBar(0, mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-9s", b.name))),
			mpb.AppendDecorators(decor.Any(text)), mpb.BarRemoveOnComplete()), b.total, b.done})
	}
	pause := every(100*time.Millisecond, func() {
		for _, b := range all {
			b.SetTotal(max(b.total.Load(), 1), false)
			b.SetCurrent(b.done.Load())
		}
	})
	return func() {
		pause()
		for _, b := range all {
			b.Abort(true)
		}
		bars.Wait()
		restore()
	}
}
