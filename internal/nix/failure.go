package nix

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// failure is one error message of a build, understood.
type failure struct {
	drv        string // derivation it is about, as a full path or, from some versions, its last part; empty: none is named
	reason     string // one line, without the derivation's path
	dependency bool   // it only says that a dependency of drv failed
	summary    bool   // the last line of all, which repeats what was said
}

var (
	quotedDrv  = regexp.MustCompile(`'?((?:/[^\s'"]*/)?[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]+\.drv)(?:[!^][^\s']*)?'?`)
	summaries  = regexp.MustCompile(`^build of '[^']*'(?:, '[^']*')* failed$|^Build failed due to failed dependency|^interrupted by the user`)
	dependency = regexp.MustCompile(`\d+ dependenc(?:y|ies)(?: of derivation)? .*failed|Reason: \d+ dependenc(?:y|ies) failed`)
	cannot     = regexp.MustCompile(`(?s)^Cannot build .*?Reason: (.*)$`)
	mismatch   = regexp.MustCompile(`(?s)^(hash mismatch in .*?) '[^']*':\s*specified:\s*(\S+)\s*got:\s*(\S+)`)
	builderFor = regexp.MustCompile(`^builder for ` + quotedDrv.String())
	buildingOf = regexp.MustCompile(`^building of ` + quotedDrv.String() + ` from \.drv file `)
	requiredTo = regexp.MustCompile(`is required to build ` + quotedDrv.String())
	// What follows a reason: the end of the log, which is kept elsewhere, advice, and paths in the sandbox.
	after = regexp.MustCompile(`(?s);?\s*(?:last \d+ log lines?:|Last \d+ log lines?:|Output paths:|Hint: |For full logs, run|For full logs, see).*$`)
	at    = regexp.MustCompile(` at ['"][^'"]*['"]$`)
)

// maxReason is the longest reason, in bytes: it is one line of a log and a cell of a table.
const maxReason = 400

// parseFailure reads an error message of `nix-store --realise`. Wordings differ between versions; testdata has recordings.
func parseFailure(message string) failure {
	message = strings.TrimSpace(message)
	text := message
	// A message with a trace, since 2.19, has its cause last.
	for rest := text; ; {
		at := strings.Index(rest, "error:")
		if at < 0 {
			break
		}
		rest = strings.TrimSpace(rest[at+len("error:"):])
		if rest != "" || text == message {
			text = rest
		}
	}
	f := failure{summary: summaries.MatchString(firstLine(text)), dependency: dependency.MatchString(text)}
	if m := quotedDrv.FindStringSubmatch(text); m != nil {
		f.drv = m[1]
	}
	f.reason = reasonOf(text)
	return f
}

func reasonOf(text string) string {
	if m := mismatch.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s: specified %s, got %s", m[1], m[2], m[3])
	}
	if m := cannot.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	text = after.ReplaceAllString(text, "")
	text = builderFor.ReplaceAllString(text, "builder")
	text = buildingOf.ReplaceAllString(text, "")
	text = requiredTo.ReplaceAllString(text, "is required")
	var parts []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSuffix(strings.TrimSpace(line), "."); line != "" {
			parts = append(parts, line)
		}
	}
	text = at.ReplaceAllString(strings.Join(parts, "; "), "")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}

var (
	noSpace   = regexp.MustCompile(`[Nn]o space left on device|disk is full|[Dd]isk quota exceeded`)
	exited    = regexp.MustCompile(`^builder failed|failed to produce output|failed with exit code|failed due to signal`)
	timedOut  = regexp.MustCompile(`^timed out after|timed out after \d+ seconds`)
	noMachine = regexp.MustCompile(`is required|it is to be built on|unable to start any build|local builds are disabled|Required system|required system`)
)

// kindOf says what a failure is, by its reason and the last lines of the builder.
func kindOf(reason string, log []string) handoff.FailureKind {
	switch {
	case strings.HasPrefix(reason, "hash mismatch"):
		return handoff.FailureHash
	case noSpace.MatchString(reason):
		return handoff.FailureDisk
	case exited.MatchString(reason):
		if slices.ContainsFunc(log, noSpace.MatchString) {
			return handoff.FailureDisk
		}
		return handoff.FailureExit
	case timedOut.MatchString(reason):
		return handoff.FailureTimeout
	case noMachine.MatchString(reason):
		return handoff.FailureSystem
	case transient.MatchString(reason):
		return handoff.FailureNetwork
	}
	return ""
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}
