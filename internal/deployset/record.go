package deployset

import (
	"fmt"
	"time"
)

// Record says what was deployed and by whom.
type Record struct {
	Commit     string    `json:"commit,omitempty"`    // of the source; empty: not known
	CommitTime time.Time `json:"commitTime,omitzero"` // when it was made; zero: not known
	Workflow   string    `json:"workflow,omitempty"`  // whose runs RunNumber counts
	RunNumber  int64     `json:"runNumber,omitempty"` // grows from run to run of a workflow; 0: not known
	Run        string    `json:"run,omitempty"`       // the run, for people: a URL as a rule
	At         time.Time `json:"at"`                  // when it began
	Version    int       `json:"version,omitempty"`   // of the history; 0: it is not kept
	Digest     string    `json:"digest,omitempty"`    // of the objects, as the history has them
}

// sameAs says whether two records tell of the same deploy, if not of the same process.
func (r Record) sameAs(o Record) bool {
	r.At, o.At, r.CommitTime, o.CommitTime, r.Run, o.Run = time.Time{}, time.Time{}, time.Time{}, time.Time{}, "", ""
	return r == o
}

// String names what was deployed.
func (r Record) String() string {
	what := "an unknown commit"
	if r.Commit != "" {
		what = "commit " + r.Commit[:min(12, len(r.Commit))]
	}
	if r.Run != "" {
		what += " (" + r.Run + ")"
	}
	return what
}

// StaleError is a commit that is older than the one it would take the place of.
type StaleError struct{ Older, Newer Record }

func (e *StaleError) Error() string {
	return fmt.Sprintf("%s is older than %s, which was deployed at %s", e.Older, e.Newer, e.Newer.At.UTC().Format(time.RFC3339))
}

// CheckOrder refuses to let an older commit take the place of a newer one, be that deployed or only begun. Of two runs of one
// workflow the one with the lower number is older: runners count them. Without such numbers the time of the commits decides;
// what is not known is not refused, nor is the same commit again.
//
// Errors: *StaleError.
func (s *Set) CheckOrder(r Record) error {
	last := s.state.Deploying
	if last == nil {
		last = s.state.Deployed
	}
	if last == nil || last.Commit == r.Commit {
		return nil
	}
	older := false
	switch {
	case last.Workflow == r.Workflow && last.RunNumber > 0 && r.RunNumber > 0:
		older = r.RunNumber < last.RunNumber
	case !last.CommitTime.IsZero() && !r.CommitTime.IsZero():
		older = r.CommitTime.Before(last.CommitTime)
	}
	if older {
		return &StaleError{r, *last}
	}
	return nil
}

// Deployed is what ran last; nil: nothing ever did.
func (s *Set) Deployed() *Record { return s.state.Deployed }
