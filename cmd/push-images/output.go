package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
)

// report says what becomes of the images: a line for each that was sent or has failed, as soon as that is known, and in the end where
// those that were sent are. What the registry had is only counted; the step summary has all of them.
type report struct {
	env    *action.Env
	dryRun bool
	width  int // of the longest name
	took   map[string]time.Duration
	failed []string // names, in the order they failed
}

func newReport(env *action.Env, in inputs) *report {
	r := &report{env: env, dryRun: in.dryRun, took: map[string]time.Duration{}}
	for _, i := range in.images {
		r.width = max(r.width, min(len(i.Name), 50))
	}
	return r
}

// maxFailures is how many images are told of that failed; what they have in common is said once more, as an error.
const maxFailures = 10

// done is told of each image, one at a time.
func (r *report) done(p handoff.PushedImage, took time.Duration) {
	r.took[p.Name] = took
	text := line(p, took)
	switch p.State {
	case handoff.PushUnchanged:
		return
	case handoff.PushFailed:
		if r.failed = append(r.failed, p.Name); len(r.failed) > maxFailures {
			return
		}
		text = p.Error
	}
	r.env.Infof("%-*s  %-9s  %s", r.width, p.Name, r.state(p.State), text)
}

// state is what is said of an image; a dry run uploads nothing.
func (r *report) state(s handoff.PushState) string {
	if r.dryRun && s == handoff.PushUploaded {
		return "to upload"
	}
	return string(s)
}

// line says how an image got there.
func line(p handoff.PushedImage, took time.Duration) string {
	var parts []string
	for _, l := range []struct {
		n    int
		what string
	}{{p.Layers.Reused, "reused"}, {p.Layers.Mounted, "mounted"}, {p.Layers.Uploaded, "uploaded"}} {
		if l.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", l.n, l.what))
		}
	}
	how := "layers: " + strings.Join(parts, ", ")
	switch {
	case len(parts) == 0 && len(p.Systems) > 1:
		how = "index of " + strings.Join(p.Systems, ", ")
	case len(parts) == 0:
		how = "no layers"
	}
	return fmt.Sprintf("%s; %s, %.1f s", how, action.Size(p.Uploaded), took.Seconds())
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
	if n := len(r.failed) - maxFailures; n > 0 && counts[handoff.PushFailed] > 0 {
		r.env.Infof("and %d more failed: %s", n, action.Names(r.failed[maxFailures:]))
	}
	if counts[handoff.PushUploaded] > 0 {
		r.tellWhere(result)
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

// tellWhere lists the images that were sent, with what deploys and people name them by. The prefix and the tags all have are said once.
func (r *report) tellWhere(result *handoff.PushResult) {
	where := cmp.Or(result.Registry, r.env.Text("oci-layout"))
	title := "images in " + where
	if r.dryRun {
		title = "images that would be in " + where
	}
	names := map[handoff.PushState][]string{}
	var there, sent []handoff.PushedImage
	for _, p := range result.Images {
		names[p.State] = append(names[p.State], p.Name)
		if p.State == handoff.PushUploaded || p.State == handoff.PushUnchanged {
			there = append(there, p)
		}
		if p.State == handoff.PushUploaded {
			sent = append(sent, p)
		}
	}
	shared := sharedTags(there)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, p := range sent {
		tags := slices.DeleteFunc(slices.Clone(p.Tags), func(tag string) bool { return slices.Contains(shared, tag) })
		fmt.Fprintf(w, "  %s\t%s\t%.19s\n", p.Name, strings.Join(tags, " "), p.Digest)
	}
	w.Flush() // into memory
	if len(shared) > 0 {
		fmt.Fprintf(&b, "  each is also %s\n", strings.Join(shared, ", "))
	}
	if same := names[handoff.PushUnchanged]; len(same) > 0 {
		fmt.Fprintf(&b, "  unchanged: %s\n", action.Names(same))
	}
	end := r.env.Group(title)
	r.env.Infof("%s", b.String())
	end()
}

// sharedTags are the tags that each of several images has, beside its first, which is its own.
func sharedTags(images []handoff.PushedImage) []string {
	if len(images) < 2 || len(images[0].Tags) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(images[0].Tags[1:]), func(tag string) bool {
		return slices.ContainsFunc(images, func(p handoff.PushedImage) bool { return !slices.Contains(p.Tags, tag) })
	})
}

// columns are those of the table in the step summary, which has every image.
var columns = []string{"image", "state", "tags", "digest", "reused", "mounted", "uploaded", "sent", "seconds"}

func (r *report) row(p handoff.PushedImage) []string {
	return []string{
		p.Repository, r.state(p.State), strings.Join(p.Tags, " "), p.Digest,
		fmt.Sprint(p.Layers.Reused), fmt.Sprint(p.Layers.Mounted), fmt.Sprint(p.Layers.Uploaded), action.Size(p.Uploaded),
		fmt.Sprintf("%.1f", r.took[p.Name].Seconds()),
	}
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
