package substituter

import (
	"fmt"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/storepath"
)

// Verdict is what the caches of a Set have for one path.
type Verdict struct {
	Path   storepath.Path
	State  handoff.State // cached, missing, partial, untrusted or error
	Reason string        // one sentence
	Cache  string        // the one that serves the path; empty unless State is cached
	// Answers are those of the caches that were asked for the path, in order; those after the one that serves it were not.
	Answers  []handoff.CacheAnswer
	NarSize  int64  // bytes of the path's NAR; 0 when no trusted narinfo says so
	Download int64  // bytes of the compressed NARs of the whole closure, when State is cached
	Err      error  // the failure that stands in the way, when State is error
	Failed   string // the cache whose failure it is
}

// verdict judges p, of whose closure everything was asked. walk marks what the walk number turn has seen.
func (s *Set) verdict(p storepath.Path, walk []int, turn int) Verdict {
	v := Verdict{Path: p}
	own := s.entries[p]
	for i, a := range own.answers {
		v.Answers = append(v.Answers, s.answer(i, a))
	}
	if own.served < 0 {
		why := s.unserved(own)
		v.State, v.Reason, v.Err, v.Failed = why.state, why.reason, why.err, why.failed
		return v
	}
	v.NarSize = own.info.NarSize
	name, last := s.caches[own.served].name, &v.Answers[own.served]
	count, download, at, why := s.closure(p, walk, turn)
	if why == nil {
		v.State, v.Cache, v.Download = handoff.StateCached, name, download
		v.Reason = fmt.Sprintf("%s has it, closure of %s, %s", name, paths(count), own.answers[own.served].by)
		return v
	}
	v.State, v.Err, v.Failed = why.state, why.err, why.failed
	if why.state == handoff.StateMissing {
		v.State = handoff.StatePartial
	}
	last.State = v.State
	last.Detail = fmt.Sprintf("refers to %s: %s", s.dir.Join(at), why.reason)
	v.Reason = fmt.Sprintf("%s has it, but it %s", name, last.Detail)
	return v
}

// closure walks what p refers to, nearest first. It returns the number of its paths and the bytes to download or, when not all
// of it is served, the first path that is not and why.
//
// A gap that remains whatever a failing cache might have said comes before a failure: a reference that no cache has makes the
// closure partial, even if another reference could not be asked for.
func (s *Set) closure(p storepath.Path, walk []int, turn int) (count int, download int64, at storepath.Path, why *gap) {
	queue := []storepath.Path{p}
	walk[s.entries[p].id] = turn
	for ; len(queue) > 0; queue = queue[1:] {
		e := s.entries[queue[0]]
		if e.served < 0 {
			g := s.unserved(e)
			if g.err == nil {
				return 0, 0, queue[0], g
			}
			if why == nil {
				at, why = queue[0], g
			}
			continue
		}
		count++
		download += e.download
		for _, ref := range e.refs {
			if id := s.entries[ref].id; walk[id] != turn {
				walk[id] = turn
				queue = append(queue, ref)
			}
		}
	}
	return count, download, at, why
}

// gap is why no cache serves a path.
type gap struct {
	state  handoff.State // missing, untrusted or error
	reason string
	err    error  // set when a cache that failed may serve it
	failed string // that cache
}

func (s *Set) unserved(e *entry) *gap {
	why := &gap{state: handoff.StateMissing, reason: "no cache has it"}
	switch len(s.caches) {
	case 0:
		why.reason = "no cache is configured"
	case 1:
		why.reason = s.caches[0].name + " does not have it"
	}
	for i, a := range e.answers {
		switch {
		case a.err != nil:
			return &gap{handoff.StateError, a.err.Error(), a.err, s.caches[i].name}
		case a.wrong != nil && why.state == handoff.StateMissing:
			why = &gap{state: handoff.StateUntrusted, reason: s.caches[i].name + " has it, but " + a.wrong.Error()}
		case a.missing != "" && why.state == handoff.StateMissing:
			why.reason += ": " + a.missing
		}
	}
	return why
}

// answer is what cache i said, for the Plan.
func (s *Set) answer(i int, a answer) handoff.CacheAnswer {
	out := handoff.CacheAnswer{Cache: s.caches[i].name, State: handoff.StateMissing, Detail: a.missing}
	switch {
	case a.err != nil:
		out.State, out.Detail = handoff.StateError, a.err.Error()
	case a.wrong != nil:
		out.State, out.Detail = handoff.StateUntrusted, a.wrong.Error()
	case a.by != "":
		out.State, out.Detail = handoff.StateCached, a.by
	}
	return out
}

func paths(n int) string {
	if n == 1 {
		return "1 path"
	}
	return fmt.Sprintf("%d paths", n)
}
