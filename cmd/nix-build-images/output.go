package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
)

// states in the order they are counted.
var states = []handoff.BuildState{handoff.BuildBuilt, handoff.BuildSubstituted, handoff.BuildSkipped, handoff.BuildFailed}

// report gives the result to the log, the step summary, the hand-over file and the outputs, and returns what went wrong.
func report(env *action.Env, result *handoff.BuildResult, built []nix.Built, took time.Duration) error {
	seconds := map[string]float64{}
	for _, b := range built {
		seconds[b.Attr] = b.Seconds
	}
	printTable(env, result.Images, seconds)
	closing := closingLine(result)
	env.Infof("%s, in %.1f s", closing, took.Seconds())
	env.Summary(summary(result, seconds, closing), failureTable(result))

	_, err := env.WriteResult(result)
	failed := names(result.Images, handoff.BuildFailed)
	return errors.Join(err,
		env.SetOutputJSON("built", names(result.Images, handoff.BuildBuilt)),
		env.SetOutputJSON("substituted", names(result.Images, handoff.BuildSubstituted)),
		env.SetOutputJSON("failed", failed),
		env.SetOutput("has-failures", fmt.Sprint(len(failed) > 0)),
		failures(*result.Flake, built),
	)
}

// names returns the names of the images in a state, each once, although it may exist for several systems.
func names(images []handoff.BuiltImage, state handoff.BuildState) []string {
	found := []string{} // an empty list is [], not null
	for _, img := range images {
		if img.State == state && !slices.Contains(found, img.Name) {
			found = append(found, img.Name)
		}
	}
	return found
}

// printTable writes one line per image that was worked on; the others are only counted.
func printTable(env *action.Env, images []handoff.BuiltImage, seconds map[string]float64) {
	several := slices.ContainsFunc(images, func(img handoff.BuiltImage) bool { return img.System != images[0].System })
	title := func(img handoff.BuiltImage) string {
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
		if img.State == handoff.BuildSkipped {
			continue
		}
		env.Infof("%-*s  %-11s  %s", width, title(img), img.State, remark(img, seconds[img.Attr]))
	}
}

// remark says how an image came to its state.
func remark(img handoff.BuiltImage, seconds float64) string {
	copied := ""
	if img.Copied {
		copied = ", copied"
	}
	switch {
	case img.State == handoff.BuildSkipped:
		return "the registry has it"
	case img.Failure != nil && img.Failure.Derivation != img.DrvPath:
		return drvName(img.Failure.Derivation) + ": " + img.Failure.Reason
	case img.Failure != nil:
		return img.Failure.Reason
	case img.File != "":
		return "its description alone, the registry has its layers"
	case seconds == 0:
		return "was in the store" + copied
	}
	return fmt.Sprintf("%.1f s%s", seconds, copied)
}

func closingLine(result *handoff.BuildResult) string {
	var parts []string
	for _, s := range states {
		n := 0
		for _, img := range result.Images {
			if img.State == s {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	line := "build: " + action.Count(len(result.Images), "image")
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	copied := 0
	for _, img := range result.Images {
		if img.Copied {
			copied++
		}
	}
	if result.CopyTo != "" {
		line += fmt.Sprintf("; %d copied to %s", copied, result.CopyTo)
	}
	return line
}

// summary is the step summary: a table of images, and the last lines of what failed.
func summary(result *handoff.BuildResult, seconds map[string]float64, closing string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### nix-build-images\n\n%s\n\n| image | system | state | |\n|---|---|---|---|\n", action.Cell(closing))
	for _, img := range result.Images {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", action.Cell(img.Name), action.Cell(img.System), img.State, action.Cell(remark(img, seconds[img.Attr])))
	}
	b.WriteString("\n")
	return b.String()
}

// failureTable says of each image that failed why, and for each derivation that did shows its last lines and how to see more.
func failureTable(result *handoff.BuildResult) string {
	var table, logs strings.Builder
	shown := map[string]bool{}
	for _, img := range result.Images {
		f := img.Failure
		if f == nil {
			continue
		}
		needs := ""
		if f.Derivation != img.DrvPath {
			needs = "a dependency: "
		}
		fmt.Fprintf(&table, "| %s | %s%s | %s |\n", action.Cell(img.Name), needs, action.Cell(drvName(f.Derivation)), action.Cell(f.Reason))
		if shown[f.Derivation] || f.Kind == handoff.FailureStopped {
			continue
		}
		shown[f.Derivation] = true
		again := fmt.Sprintf("nix log %s\n%s -L\n", f.Derivation, repeat(*result.Flake, img.Attr))
		fmt.Fprintf(&logs, "\n<details><summary>%s</summary>\n\n", action.Cell(drvName(f.Derivation)))
		if len(f.Log) > 0 {
			logs.WriteString(action.Pre(strings.Join(f.Log, "\n")) + "\n")
		}
		fmt.Fprintf(&logs, "All of its log, and once more on your machine:\n\n%s</details>\n", action.Pre(again))
	}
	if table.Len() == 0 {
		return ""
	}
	return "| failed image | derivation | why |\n|---|---|---|\n" + table.String() + logs.String() + "\n"
}

// drvName is the name in a derivation's path: /nix/store/<hash>-<name>.drv.
func drvName(drv string) string {
	base := strings.TrimSuffix(path.Base(drv), ".drv")
	if _, name, ok := strings.Cut(base, "-"); ok {
		return name
	}
	return base
}
