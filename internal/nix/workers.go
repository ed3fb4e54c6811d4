package nix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// A further process evaluates once more what the attributes have in common. That pays when this much is left to do.
	worthAWorker = 2 * time.Second
	// A throw is caught and its message lost, so a process of its own asks for that; it costs what the attributes have in common.
	// After so many the messages are not asked for.
	maxExplained = 20
	// Attributes that one process is told by name: Linux passes no argument longer than 128 KiB.
	maxNamed = 1000
)

// EvalOptions say how a flake is evaluated. The zero value is one process without a limit.
type EvalOptions struct {
	Workers int // processes at most
	Memory  int // MiB for all of them; a process over its share is started again where it was
}

// evaluation finds out about a list of attributes, with one process or several. Each process goes through a stretch of the list
// and answers as it goes; when an attribute ends it, that attribute has failed and a new process goes on behind it. A worker
// that has nothing to do takes half of what another has before it.
type evaluation struct {
	ev      *evaluator
	options EvalOptions
	worth   time.Duration

	help func(*worker) // sets a worker to work

	mu       sync.Mutex
	systems  []systemNames
	todo     []attribute
	known    bool // todo is: it comes with the first process's first answers
	images   []rawImage
	failures []*EvalError
	unclear  []int // of todo: they throw, and a worker is to find out what
	throws   int
	heavy    []int // of todo: they went over a worker's share of memory, and get all of it at the end
	fatal    error // ends everything
	workers  []*worker
	since    time.Time // when todo became known
	done     int       // attributes answered since
}

// worker is a process, or several one after the other, on todo[next:end].
type worker struct {
	next, end int
	plainly   bool // throws are not caught: their message is wanted
	began     int  // where its process began
	asked     int  // where its process ends if nobody takes over
	pid       int
	stop      context.CancelCauseFunc // its process
}

var (
	errStretchEnds = errors.New("the rest is another worker's")
	errOverBudget  = errors.New("over its share of memory")
)

func newEvaluation(ev *evaluator, o EvalOptions) *evaluation {
	ev.env = initialHeap(ev.nix, o)
	return &evaluation{ev: ev, options: o, worth: worthAWorker}
}

// all evaluates the selected attributes of systems.
func (e *evaluation) all(ctx context.Context, systems []string, sel selection) error {
	first := request{Systems: systems, Include: sel.include(), Exclude: sel.exclude(), Careful: true}
	return e.run(ctx, func(ctx context.Context, w *worker) {
		err := e.process(ctx, w, first, sel)
		if !e.known && errors.As(err, new(*storeNeededError)) {
			e.systems, e.todo = nil, nil
			err = e.process(ctx, w, first, sel)
		}
		switch {
		case e.known: // an attribute that fails is no reason to ask for the names again
			e.after(w, err)
		case isCommandError(err) && noPackages.MatchString(err.Error()):
			for _, s := range systems {
				e.systems = append(e.systems, systemNames{System: s})
			}
		case errors.Is(err, errOverBudget):
			e.fatal = &EvalError{Attr: "packages", Message: e.tooLarge()}
		default:
			e.fatal = evalError("packages", err)
		}
	})
}

// these evaluates certain attributes.
func (e *evaluation) these(ctx context.Context, attrs []attribute) error {
	e.todo, e.known, e.since = attrs, true, time.Now()
	return e.run(ctx, func(_ context.Context, w *worker) { w.end = len(attrs) })
}

// run starts the first worker with begin, and returns when all are done: an *EvalError for each attribute that failed, joined, or the
// one error that ended everything.
func (e *evaluation) run(ctx context.Context, begin func(context.Context, *worker)) error {
	ctx, cancel := context.WithCancel(ctx)
	var running, watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	if e.options.Memory > 0 {
		watching.Go(func() { e.watch(ctx) })
	}
	e.help = func(w *worker) { running.Go(func() { e.work(ctx, w) }) }
	running.Go(func() {
		w := &worker{}
		e.workers = []*worker{w}
		begin(ctx, w)
		e.work(ctx, w)
	})
	running.Wait()
	for _, i := range e.heavy { // alone, so that the whole budget is its
		again := len(e.heavy)
		w := &worker{next: i, end: i + 1}
		e.workers = []*worker{w}
		e.work(ctx, w)
		if len(e.heavy) > again {
			e.fail(i, &EvalError{Message: e.tooLarge()})
		}
	}
	if e.fatal != nil {
		return e.fatal
	}
	slices.SortFunc(e.failures, func(a, b *EvalError) int { return strings.Compare(a.Attr, b.Attr) })
	var all []error
	for _, f := range e.failures {
		all = append(all, f)
	}
	return errors.Join(all...)
}

func (e *evaluation) tooLarge() string {
	return fmt.Sprintf("it needs more memory than eval-memory allows, %d MiB", e.options.Memory)
}

// work goes through the worker's stretch, then through parts of others', until nothing is left.
func (e *evaluation) work(ctx context.Context, w *worker) {
	for {
		req, ok := e.request(w)
		if !ok {
			return
		}
		e.after(w, e.process(ctx, w, req, selection{}))
	}
}

// request is what the worker's next process is asked; false when nothing is left to ask.
func (e *evaluation) request(w *worker) (request, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fatal == nil && w.next >= w.end {
		w.plainly = false
		if n := len(e.unclear) - 1; n >= 0 {
			w.next, w.end, w.plainly = e.unclear[n], e.unclear[n]+1, true
			e.unclear = e.unclear[:n]
		} else if from := e.busiest(); from != nil {
			w.takeHalf(from)
		}
	}
	if e.fatal != nil || w.next >= w.end {
		e.workers = slices.DeleteFunc(e.workers, func(x *worker) bool { return x == w })
		return request{}, false
	}
	w.began, w.asked = w.next, min(w.end, w.next+maxNamed)
	return request{Include: []string{}, Exclude: []string{}, Careful: !w.plainly,
		Attributes: e.todo[w.began:w.asked]}, true
}

// busiest is the worker with the most before it, if half of that is worth another process.
func (e *evaluation) busiest() *worker {
	if e.done == 0 || len(e.workers) == 0 {
		return nil
	}
	longest := slices.MaxFunc(e.workers, func(a, b *worker) int { return (a.end - a.next) - (b.end - b.next) })
	left := longest.end - longest.next - 1 // it is at one
	each := time.Since(e.since) * time.Duration(len(e.workers)) / time.Duration(e.done)
	if left < 1 || time.Duration(left)*each < e.worth {
		return nil
	}
	return longest
}

// takeHalf moves the second half of what another worker has before it.
func (w *worker) takeHalf(other *worker) {
	w.end = other.end
	w.next = other.end - (other.end-other.next)/2
	other.end = w.next
}

// process runs one process of a worker and takes its answers.
func (e *evaluation) process(ctx context.Context, w *worker, req request, sel selection) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	started := func(pid int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		w.pid, w.stop = pid, stop
	}
	defer started(0)
	return e.ev.ask(ctx, req, started, func(a answer) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if a.Attribute == nil {
			e.named(w, a.systemNames, len(req.Systems), sel)
			return nil
		}
		return e.answered(w, a.Found)
	})
}

// named takes in a system's names; after those of the last one, the list of attributes is known.
func (e *evaluation) named(w *worker, s systemNames, systems int, sel selection) {
	e.systems = append(e.systems, s)
	for _, name := range s.Names {
		if at := (attribute{s.System, name}); sel.has(at) {
			e.todo = append(e.todo, at)
		}
	}
	if len(e.systems) == systems {
		e.known, e.since = true, time.Now()
		w.end, w.asked = len(e.todo), len(e.todo)
	}
}

// answered takes in what is known of the attribute that a worker is at.
func (e *evaluation) answered(w *worker, found rawImage) error {
	if w.next >= w.end { // taken away while the answer was under way
		return errStretchEnds
	}
	if e.todo[w.next] != found.attr {
		return fmt.Errorf("nix answers about %s instead of %s: the flake changed while it was evaluated", found.attr, e.todo[w.next])
	}
	switch {
	case found.Failed && e.throws < maxExplained:
		e.throws++
		e.unclear = append(e.unclear, w.next)
	case found.Failed:
		e.fail(w.next, &EvalError{Message: fmt.Sprintf("it throws, or an assertion of it fails, as %d others do", maxExplained)})
	case found.Image:
		e.images = append(e.images, found)
	}
	e.done++
	w.next++
	if w.next >= w.end && w.end < w.asked {
		return errStretchEnds
	}
	if n := len(e.workers) + 1; n <= e.options.Workers {
		if from := e.busiest(); (from != nil || len(e.unclear) > 0) && e.fits(n) {
			helper := &worker{}
			if len(e.unclear) == 0 {
				helper.takeHalf(from)
			}
			e.workers = append(e.workers, helper)
			e.help(helper)
		}
	}
	return nil
}

// after judges the end of a worker's process.
func (e *evaluation) after(w *worker, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.fatal != nil || errors.Is(err, errStretchEnds) || errors.As(err, new(*storeNeededError)):
	case errors.Is(err, errOverBudget):
		if w.next == w.began && w.next < w.end {
			e.heavy = append(e.heavy, w.next)
			w.next++
		}
	case isCommandError(err):
		if w.next < w.end {
			e.fail(w.next, &EvalError{Message: commandMessage(err), Err: err})
			w.next++
		}
	case err == nil && w.next < min(w.asked, w.end):
		e.fatal = fmt.Errorf("nix says nothing about %s", e.todo[w.next])
	default:
		e.fatal = err
	}
}

func (e *evaluation) fail(i int, err *EvalError) {
	err.Attr = e.todo[i].String()
	e.failures = append(e.failures, err)
}
