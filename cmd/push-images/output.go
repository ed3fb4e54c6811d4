package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
)

// report says what becomes of the images: a line for each that was sent or has failed, as soon as that is known, and all of
// them in a table at the end.
type report struct {
	env    *action.Env
	dryRun bool
	width  int // of the longest name
	took   map[string]time.Duration
}

func newReport(env *action.Env, in inputs) *report {
	r := &report{env: env, dryRun: in.dryRun, took: map[string]time.Duration{}}
	for _, i := range in.images {
		r.width = max(r.width, min(len(i.Name), 50))
	}
	return r
}

// done is told of each image, one at a time.
func (r *report) done(p handoff.PushedImage, took time.Duration) {
	r.took[p.Name] = took
	if p.State != handoff.PushUnchanged {
		r.env.Infof("%-*s  %-9s  %s", r.width, p.Name, r.state(p.State), line(p, took))
	}
}

// state is what is said of an image; a dry run uploads nothing.
func (r *report) state(s handoff.PushState) string {
	if r.dryRun && s == handoff.PushUploaded {
		return "to upload"
	}
	return string(s)
}

func line(p handoff.PushedImage, took time.Duration) string {
	if p.State == handoff.PushFailed {
		return p.Error
	}
	l := p.Layers
	return fmt.Sprintf("layers: %d reused, %d mounted, %d uploaded; %s, %.1f s", l.Reused, l.Mounted, l.Uploaded, action.Size(p.Uploaded), took.Seconds())
}

// write gives the PushResult to the log, the step summary, the hand-over file and the outputs.
func (r *report) write(result *handoff.PushResult, took time.Duration) error {
	digests, references := map[string]string{}, map[string]string{}
	counts := map[handoff.PushState]int{}
	sent := int64(0)
	for i, p := range result.Images {
		result.Images[i].Seconds = r.took[p.Name].Round(time.Millisecond).Seconds()
		counts[p.State]++
		sent += p.Uploaded
		if p.Digest != "" && p.State != handoff.PushFailed {
			digests[p.Name], references[p.Name] = p.Digest, p.Reference()
		}
	}
	var parts []string
	for _, s := range []handoff.PushState{handoff.PushUploaded, handoff.PushUnchanged, handoff.PushSkipped, handoff.PushFailed} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], r.state(s)))
		}
	}
	closing := fmt.Sprintf("push: %s", action.Count(len(result.Images), "image"))
	if len(parts) > 0 {
		closing += ": " + strings.Join(parts, ", ")
	}
	if result.Skipped != "" {
		r.env.LeaveOut("the push to %s: %s", result.Registry, result.Skipped)
	}
	if r.dryRun {
		closing += fmt.Sprintf("; dry run, %s would be sent", action.Size(sent))
	} else {
		closing += fmt.Sprintf("; %s sent", action.Size(sent))
	}
	// A runner folds it; elsewhere it is left out when there is nothing to tell.
	if len(result.Images) > 0 && (r.env.InRunner() || counts[handoff.PushUnchanged] < len(result.Images)) {
		end := r.env.Group("images")
		r.env.Infof("%s", r.table(result))
		end()
	}
	r.env.Infof("%s, in %.1f s", closing, took.Seconds())
	r.env.Summary(r.summary(result, closing), "")
	_, err := r.env.WriteResult(result)
	return errors.Join(err,
		r.env.SetOutputJSON("digests", digests),
		r.env.SetOutputJSON("images", references),
		r.env.SetOutput("uploaded-bytes", fmt.Sprint(sent)),
	)
}

// columns are those of the table in the log and of the one in the step summary.
var columns = []string{"image", "state", "tags", "digest", "reused", "mounted", "uploaded", "sent", "seconds"}

func (r *report) row(p handoff.PushedImage) []string {
	return []string{
		p.Repository, r.state(p.State), strings.Join(p.Tags, " "), p.Digest,
		fmt.Sprint(p.Layers.Reused), fmt.Sprint(p.Layers.Mounted), fmt.Sprint(p.Layers.Uploaded), action.Size(p.Uploaded),
		fmt.Sprintf("%.1f", r.took[p.Name].Seconds()),
	}
}

func (r *report) table(result *handoff.PushResult) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, p := range result.Images {
		fmt.Fprintln(w, strings.Join(r.row(p), "\t"))
	}
	w.Flush() // into memory
	return b.String()
}

func (r *report) summary(result *handoff.PushResult, closing string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### push-images\n\n%s\n\n| %s |\n|%s\n", action.Cell(closing), strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, p := range result.Images {
		row := r.row(p)
		if p.Error != "" {
			row[1] += ": " + p.Error
		}
		for i := range row {
			row[i] = action.Cell(row[i])
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
	return b.String()
}
