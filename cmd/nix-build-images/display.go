package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/nix"
)

// display draws, below what is logged on a terminal, a bar of all derivations and a line for each builder that runs. It vanishes
// in the end. The methods of a nil display do nothing.
type display struct {
	bars    *mpb.Progress
	all     *mpb.Bar
	restore func()

	mu       sync.Mutex
	progress nix.Progress
	builders map[string]*builderLine
}

type builderLine struct {
	bar  *mpb.Bar
	last string
}

// newDisplay is nil when nobody would see it.
func newDisplay(env *action.Env) *display {
	terminal, ok := env.Stderr.(*os.File)
	if !ok || env.InRunner() || !term.IsTerminal(int(terminal.Fd())) {
		return nil
	}
	d := &display{bars: mpb.New(mpb.WithOutput(terminal), mpb.WithWidth(40)), builders: map[string]*builderLine{}}
	d.restore = env.Through(d.bars)
	d.all = d.bars.AddBar(1, mpb.BarPriority(1<<30), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
		d.mu.Lock()
		defer d.mu.Unlock()
		text := fmt.Sprintf(" %d done, %d running, %d waiting", d.progress.Done, d.progress.Running, d.progress.Waiting)
		if d.progress.Fetched > 0 {
			text += ", " + action.Size(d.progress.Fetched) + " fetched"
		}
		return text
	})))
	return d
}

// maxBuilders is how many lines there are at most.
const maxBuilders = 12

func (d *display) add(drv, name string) {
	if d == nil {
		return
	}
	d.mu.Lock()
	full := len(d.builders) >= maxBuilders || d.builders[drv] != nil
	d.mu.Unlock()
	if full {
		return
	}
	start, b := time.Now(), &builderLine{}
	// Without the lock: the bars are drawn by a goroutine that this call waits for, and that takes it.
	b.bar = d.bars.New(0, mpb.NopStyle(), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
		d.mu.Lock()
		defer d.mu.Unlock()
		return fmt.Sprintf("  %-30s %5s  %s", cut(action.Clean(name), 40), time.Since(start).Round(time.Second), b.last)
	})))
	d.mu.Lock()
	d.builders[drv] = b
	d.mu.Unlock()
}

func (d *display) line(drv, text string) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.builders[drv]; b != nil {
		b.last = action.Clean(cut(text, 60))
	}
}

func (d *display) remove(drv string) {
	if d == nil {
		return
	}
	d.mu.Lock()
	b := d.builders[drv]
	delete(d.builders, drv)
	d.mu.Unlock()
	if b != nil {
		b.bar.Abort(true)
	}
}

func (d *display) total(p nix.Progress) {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.progress = p
	d.mu.Unlock()
	d.all.SetTotal(int64(max(1, p.Done+p.Running+p.Waiting)), false)
	d.all.SetCurrent(int64(p.Done))
}

func (d *display) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	lines := d.builders
	d.builders = nil
	d.mu.Unlock()
	for _, b := range lines {
		b.bar.Abort(true)
	}
	d.all.Abort(true)
	d.bars.Wait()
	d.restore()
}
