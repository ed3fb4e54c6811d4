package nix

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

// watch stops every process that uses more than its share of the memory budget, until ctx ends.
func (e *evaluation) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		e.mu.Lock()
		for _, w := range e.workers {
			if w.pid != 0 && resident(w.pid) > e.budget(len(e.workers)) {
				w.stop(errOverBudget)
			}
		}
		e.mu.Unlock()
	}
}

// initialHeap keeps Nix's garbage collector from what it does by default: to collect nothing before 384 MiB are used, which a small
// budget does not have.
func initialHeap(n *Nix, o EvalOptions) []string {
	const name, usual = "GC_INITIAL_HEAP_SIZE", 384
	share := o.Memory / max(1, o.Workers)
	if o.Memory == 0 || share >= 4*usual || n.getenv(name) != "" {
		return nil
	}
	return []string{name + "=" + strconv.Itoa(share<<20/4)}
}

// budget is the share of each of n processes, in bytes.
func (e *evaluation) budget(n int) int64 { return int64(e.options.Memory) << 20 / int64(n) }

// fits says whether the processes there are leave room for there to be n.
func (e *evaluation) fits(n int) bool {
	for _, w := range e.workers {
		if e.options.Memory > 0 && resident(w.pid) > e.budget(n) {
			return false
		}
	}
	return true
}

// resident is the memory that a process occupies, in bytes; zero when that is not known, as everywhere but on Linux.
func resident(pid int) int64 {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
