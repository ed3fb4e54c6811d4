package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/report"
)

// states in the order people care about them.
var states = []handoff.State{handoff.StatePushed, handoff.StateCached, handoff.StateMissing, handoff.StatePartial,
	handoff.StateUntrusted, handoff.StateUnknown, handoff.StateError}

// write gives the Plan to the log, the step summary, the hand-over file and the outputs.
func write(env *action.Env, plan *handoff.Plan, took time.Duration) error {
	counts := map[handoff.State]int{}
	for _, s := range states {
		counts[s] = 0
	}
	var build, push []string
	matrix := struct {
		Include []job `json:"include"`
	}{[]job{}}
	for _, img := range plan.Images {
		counts[img.State]++
		if img.Build {
			build = append(build, img.Name)
		}
		if img.Push {
			push = append(push, img.Name)
		}
		if img.Build || img.Push {
			matrix.Include = append(matrix.Include, job{img.Name, img.Attr, img.System, fmt.Sprintf("%d/%d", max(img.Shard, 1), max(plan.Shards, 1))})
		}
	}
	printTable(env, plan.Images)
	closing := closingLine(plan, counts, len(build), len(push))
	printChanges(env, plan.Changes)
	env.Infof("%s, in %.1f s", closing, took.Seconds())
	env.Summary(summary(plan, closing)+report.Changes(plan.Changes), "")

	_, err := env.WriteResult(plan)
	return errors.Join(err,
		env.SetOutputJSON("images", names(plan.Images, func(handoff.PlannedImage) bool { return true })),
		env.SetOutputJSON("to-build", names(plan.Images, func(img handoff.PlannedImage) bool { return img.Build })),
		env.SetOutputJSON("to-push", names(plan.Images, func(img handoff.PlannedImage) bool { return img.Push })),
		env.SetOutput("has-work", fmt.Sprint(len(matrix.Include) > 0)),
		env.SetOutput("all-cached", fmt.Sprint(counts[handoff.StatePushed]+counts[handoff.StateCached] == len(plan.Images))),
		env.SetOutputJSON("counts", counts),
		env.SetOutputJSON("matrix", matrix),
	)
}

// job is an entry of the matrix output.
type job struct {
	Name   string `json:"name"`
	Attr   string `json:"attr"`
	System string `json:"system"`
	Shard  string `json:"shard"` // part and number of parts
}

// names returns the names of the images that are chosen, each once, although it may exist for several systems.
func names(images []handoff.PlannedImage, chosen func(handoff.PlannedImage) bool) []string {
	found := []string{} // an empty list is [], not null
	for _, img := range images {
		if chosen(img) && !slices.Contains(found, img.Name) {
			found = append(found, img.Name)
		}
	}
	return found
}

// printTable writes one line per image.
func printTable(env *action.Env, images []handoff.PlannedImage) {
	several := slices.ContainsFunc(images, func(img handoff.PlannedImage) bool { return img.System != images[0].System })
	title := func(img handoff.PlannedImage) string {
		if several {
			return img.Name + " (" + img.System + ")"
		}
		return img.Name
	}
	width := 0
	for _, img := range images {
		width = max(width, min(len(title(img)), 50))
	}
	for _, img := range images {
		env.Infof("%-*s  %-9s  %s", width, title(img), img.State, img.Reason)
	}
}

func closingLine(plan *handoff.Plan, counts map[handoff.State]int, build, push int) string {
	var parts []string
	for _, s := range states {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	return fmt.Sprintf("plan: %s: %s; %d to build, %d to push", action.Count(len(plan.Images), "image"), strings.Join(parts, ", "), build, push)
}

// summary is the step summary: a table of images with what was seen and what follows.
func summary(plan *handoff.Plan, closing string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### nix-cache-check\n\n%s\n\n| image | system | state | next | why |\n|---|---|---|---|---|\n", action.Cell(closing))
	for _, img := range plan.Images {
		next := "nothing"
		switch {
		case img.Build:
			next = "build, push"
		case img.Push:
			next = "push"
		case img.State == handoff.StateError:
			next = "stop"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", action.Cell(img.Name), action.Cell(img.System), img.State, next, action.Cell(img.Reason))
	}
	b.WriteString("\n")
	return b.String()
}
