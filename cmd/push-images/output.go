package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/push"
)

// table prints one line for each image that was sent or has failed, as soon as that is known. The others are only counted.
type table struct {
	env   *action.Env
	width int // of the longest name
}

func newTable(env *action.Env, images []push.Image) *table {
	t := &table{env: env}
	for _, i := range images {
		t.width = max(t.width, min(len(i.Name), 50))
	}
	return t
}

func (t *table) print(p handoff.PushedImage, took time.Duration) {
	if p.State == handoff.PushUnchanged {
		return
	}
	t.env.Infof("%-*s  %-9s  %s", t.width, p.Name, p.State, line(p, took))
}

func line(p handoff.PushedImage, took time.Duration) string {
	if p.State == handoff.PushFailed {
		return p.Error
	}
	return fmt.Sprintf("%s; %s, %.1f s", layers(p.Layers), action.Size(p.Uploaded), took.Seconds())
}

func layers(l handoff.Layers) string {
	return fmt.Sprintf("layers: %d reused, %d mounted, %d uploaded", l.Reused, l.Mounted, l.Uploaded)
}

// write gives the PushResult to the log, the step summary, the hand-over file and the outputs.
func write(env *action.Env, r *handoff.PushResult, took time.Duration) error {
	digests, references := map[string]string{}, map[string]string{}
	counts := map[handoff.PushState]int{}
	sent := int64(0)
	for _, p := range r.Images {
		counts[p.State]++
		sent += p.Uploaded
		if p.State != handoff.PushFailed {
			digests[p.Name], references[p.Name] = p.Digest, p.Reference()
		}
	}
	var parts []string
	for _, s := range []handoff.PushState{handoff.PushUploaded, handoff.PushUnchanged, handoff.PushFailed} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	closing := fmt.Sprintf("push: %s", action.Count(len(r.Images), "image"))
	if len(parts) > 0 {
		closing += ": " + strings.Join(parts, ", ")
	}
	closing += fmt.Sprintf("; %s sent", action.Size(sent))
	env.Infof("%s, in %.1f s", closing, took.Seconds())
	env.Summary(summary(r, closing))
	_, err := env.WriteResult(r)
	return errors.Join(err,
		env.SetOutputJSON("digests", digests),
		env.SetOutputJSON("images", references),
		env.SetOutput("uploaded-bytes", fmt.Sprint(sent)),
	)
}

// summary is the step summary: a table of images, with the layers that were reused, mounted and uploaded.
func summary(r *handoff.PushResult, closing string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### push-images\n\n%s\n\n| image | state | tags | digest | reused / mounted / uploaded | sent |\n|---|---|---|---|---|---|\n", action.Cell(closing))
	for _, p := range r.Images {
		state := string(p.State)
		if p.Error != "" {
			state += ": " + p.Error
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d / %d / %d | %s |\n", action.Cell(p.Repository), action.Cell(state), action.Cell(strings.Join(p.Tags, " ")),
			action.Cell(p.Digest), p.Layers.Reused, p.Layers.Mounted, p.Layers.Uploaded, action.Size(p.Uploaded))
	}
	b.WriteString("\n")
	return b.String()
}
