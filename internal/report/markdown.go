package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/inert"
)

// Stop is where a run ended before its end.
type Stop struct {
	Step   string // name of the action
	Code   int    // its exit code
	Causes []Cause
}

// Cause is one error: line and its hint: line.
type Cause struct{ Error, Hint string }

// Bounds of a summary. Runners take 1 MiB of a step and show or drop what is longer.
const (
	maxRows   = 200       // of a table
	maxTable  = 256 << 10 // bytes of a table: hostile names may fill each row
	maxCauses = 20        // of a stop
	maxCell   = 300       // characters of a cell, before they are escaped
)

// Markdown is the run as a step summary: where it stopped, one row for each image, what was rebuilt and why. stop is nil when it
// did not stop. It has less than 1 MiB, however many images there are.
func (p *Pipeline) Markdown(stop *Stop) string {
	var b strings.Builder
	outcome := "done"
	if stop != nil || p.failed() {
		outcome = "failed"
	}
	fmt.Fprintf(&b, "### flakeship: %s\n\n", outcome)
	if facts := p.facts(); len(facts) > 0 {
		fmt.Fprintf(&b, "%s\n\n", inert.Cell(strings.Join(facts, ", ")))
	}
	for _, why := range p.leftOut() {
		fmt.Fprintf(&b, "%s\n\n", inert.Cell(why))
	}
	if stop != nil {
		b.WriteString(stop.Markdown())
	}
	b.WriteString(p.table())
	if p.Plan != nil {
		b.WriteString(Changes(p.Plan.Changes))
	}
	if link := p.log(); link != "" {
		fmt.Fprintf(&b, "%s\n\n", inert.Link("The log of this run", link))
	}
	return b.String()
}

// Markdown says where the run stopped, why, and what to do.
func (s *Stop) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**Stopped in %s**, exit code %d:\n\n", s.Step, s.Code)
	for i, c := range s.Causes {
		if i == maxCauses {
			fmt.Fprintf(&b, "- and %d more; the log has all\n", len(s.Causes)-i)
			break
		}
		fmt.Fprintf(&b, "- %s", inert.Cell(cut(c.Error, 5*maxCell)))
		if c.Hint != "" {
			fmt.Fprintf(&b, "<br>*Hint:* %s", inert.Cell(cut(c.Hint, 5*maxCell)))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	return b.String()
}

// A row is what the summary says of an image, as plain text.
type row struct {
	name, link                     string
	found, built, pushed, deployed string
	seconds                        float64 // 0: nothing was done that took any
	rank                           int     // the lower, the more it is worth reading
	work                           string
}

func (r row) time() string {
	if r.seconds == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", r.seconds)
}

const (
	rankFailed = iota
	rankDone
	rankUnchanged
)

// rows are the images, the failed ones first, those nothing was done for last.
func (p *Pipeline) rows() []row {
	images := p.images()
	several := slices.ContainsFunc(images, func(i *image) bool { return i.system != images[0].system })
	var rows []row
	for _, i := range images {
		r := row{name: i.title(several), link: p.link(i), built: i.buildCell(), pushed: i.pushCell(), work: i.work(), rank: rankUnchanged}
		state, reason := i.verdict()
		if r.found = state; i.planned != nil && (i.planned.State == handoff.StateError || i.planned.State == handoff.StatePartial || i.planned.State == handoff.StateUntrusted) {
			r.found += ": " + reason
		}
		if i.built != nil {
			r.seconds += i.built.Seconds
		}
		if i.pushed != nil {
			r.seconds += i.pushed.Seconds
		}
		longest := 0.0
		var places []string
		for _, o := range i.objects {
			if p.Deploy.Skipped != "" {
				break // it is not deployed
			}
			places = append(places, place(*o, p.Deploy.DryRun))
			longest = max(longest, o.Seconds)
			if objectFailed(*o) {
				r.rank, r.work = rankFailed, "failed"
			} else if o.Action != handoff.ActionUnchanged && o.Action != handoff.ActionSkipped {
				r.rank = min(r.rank, rankDone)
			}
		}
		r.seconds += longest
		if r.deployed = strings.Join(places[:min(len(places), 3)], ", "); len(places) > 3 {
			r.deployed += fmt.Sprintf(" and %d more", len(places)-3)
		}
		switch {
		case i.failure() != "":
			r.rank = rankFailed
		case r.work != unchanged:
			r.rank = min(r.rank, rankDone)
		}
		rows = append(rows, r)
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.rank, b.rank) })
	return rows
}

// place is an object that runs an image, and what became of it.
func place(o handoff.DeployedObject, dryRun bool) string {
	var what []string
	if o.Action != handoff.ActionUnchanged {
		if action := string(o.Action); dryRun {
			what = append(what, "would be "+action)
		} else {
			what = append(what, action)
		}
	}
	if o.Rollout != handoff.RolloutNone && o.Rollout != "" {
		what = append(what, string(o.Rollout))
	}
	if len(what) == 0 {
		return o.ID()
	}
	return o.ID() + " " + strings.Join(what, " and ")
}

func (i *image) buildCell() string {
	if i.built == nil {
		return ""
	}
	switch i.built.State {
	case handoff.BuildSkipped:
		return ""
	case handoff.BuildFailed:
		if i.built.Failure != nil {
			return "failed: " + i.built.Failure.Reason
		}
	case handoff.BuildSubstituted:
		return "fetched"
	}
	if i.built.Copied {
		return string(i.built.State) + ", copied"
	}
	return string(i.built.State)
}

// pushCell names the digest by its first characters: the registry's page, the report and the outputs have all of it.
func (i *image) pushCell() string {
	if i.pushed == nil {
		return ""
	}
	const recognised = len("sha256:") + 12
	digest := i.pushed.Digest[:min(len(i.pushed.Digest), recognised)]
	switch i.pushed.State {
	case handoff.PushFailed:
		return "failed: " + i.pushed.Error
	case handoff.PushUploaded:
		return size(i.pushed.Uploaded) + ", " + digest
	case handoff.PushSkipped:
		return "left out"
	}
	return digest
}

// table has a row for each image, as many as are worth reading and have room, and a line that counts the others.
func (p *Pipeline) table() string {
	rows := p.rows()
	if len(rows) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("| image | found | built | pushed | deployed | seconds |\n|---|---|---|---|---|---|\n")
	for n, r := range rows {
		if n == maxRows || b.Len() > maxTable {
			fmt.Fprintf(&b, "\n%s. The log and the hand-over files have all of them.\n", more(rows[n:]))
			break
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", inert.Link(cut(r.name, maxCell), r.link), inert.Cell(cut(r.found, maxCell)),
			p.toLog(cut(r.built, maxCell)), inert.Cell(cut(r.pushed, maxCell)), inert.Cell(cut(r.deployed, maxCell)), r.time())
	}
	b.WriteString("\n")
	return b.String()
}

// toLog is a cell that leads to the log, which has more to say of a build.
func (p *Pipeline) toLog(text string) string {
	if text == "" {
		return ""
	}
	return inert.Link(text, p.log())
}

// more counts images that are not listed.
func more(rows []row) string {
	counts := map[string]int{}
	var kinds []string
	for _, r := range rows {
		if counts[r.work]++; counts[r.work] == 1 {
			kinds = append(kinds, r.work)
		}
	}
	var parts []string
	for _, kind := range kinds {
		parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return fmt.Sprintf("… and %s not listed here: %s", count(len(rows), "image"), strings.Join(parts, ", "))
}

// Text is the same table for a log: the images something was done for.
func (p *Pipeline) Text() string {
	rows := p.rows()
	end := slices.IndexFunc(rows, func(r row) bool { return r.rank == rankUnchanged })
	if end < 0 {
		end = len(rows)
	}
	if end == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "image\tfound\tbuilt\tpushed\tdeployed\tseconds")
	for _, r := range rows[:min(end, maxRows)] {
		plain := func(text string) string {
			return strings.ReplaceAll(inert.Line(inert.OneLine(cut(text, 80))), "\t", " ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", plain(r.name), plain(r.found), plain(r.built), plain(r.pushed), plain(r.deployed), r.time())
	}
	w.Flush() // into memory
	if rest := rows[min(end, maxRows):]; len(rest) > 0 {
		fmt.Fprintln(&b, more(rest))
	}
	return b.String()
}

// leftOut says what a run without credentials did not do.
func (p *Pipeline) leftOut() (why []string) {
	if p.Push != nil && p.Push.Skipped != "" {
		why = append(why, "Push left out: "+p.Push.Skipped+".")
	}
	if p.Deploy != nil && p.Deploy.Skipped != "" {
		why = append(why, "Deploy left out: "+p.Deploy.Skipped+".")
	}
	return why
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
