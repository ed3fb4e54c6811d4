package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/rollout"
)

func logChange(env *action.Env, c apply.Change) {
	if !isChange(c.Action) {
		return // only counted
	}
	line := fmt.Sprintf("%-10s  %s", c.Action, c.Object.ID())
	if c.Message != "" {
		line += " (" + c.Message + ")"
	}
	env.Infof("%s", line)
}

func logRollout(env *action.Env, t rollout.Target, r rollout.Result) {
	line := fmt.Sprintf("%-10s  %s", r.Rollout, rollout.ID(t.Live))
	switch r.Rollout {
	case handoff.RolloutReady:
		line += fmt.Sprintf(": %s, %.1f s", r.Message, r.Seconds)
	case handoff.RolloutNone:
		env.Warnf("%s: %s", rollout.ID(t.Live), r.Message)
		return
	default:
		line += fmt.Sprintf(" after %.1f s: %s", r.Seconds, r.Message)
	}
	env.Infof("%s", line)
}

// slowLines is how many objects are told of at a time.
const slowLines = 5

// logSlow tells what is awaited, and for how long.
func logSlow(env *action.Env, all []rollout.Outcome) {
	for i, o := range all {
		if i == slowLines {
			env.Infof("%-10s  and %d more", "waiting", len(all)-i)
			break
		}
		env.Infof("%-10s  %s, for %.0f s", "waiting", o, o.Seconds)
	}
}

// write writes the result, the outputs, the closing line and the summary.
func write(env *action.Env, result *handoff.DeployResult, took time.Duration, good bool) error {
	applied, pruned := []string{}, []string{}
	for _, o := range result.Objects {
		switch {
		case isChange(o.Action):
			applied = append(applied, o.ID())
		case o.Action == handoff.ActionPruned:
			pruned = append(pruned, o.ID())
		}
	}
	verb := "deployed"
	if !good {
		verb = "not deployed"
	}
	env.Infof("%s: %s, in %.1f s", verb, tally(result), took.Seconds())
	env.Summary("", summary(result, took))
	_, err := env.WriteResult(result)
	return errors.Join(err, env.SetOutput("changed", fmt.Sprint(result.Changed)), env.SetOutputJSON("applied", applied), env.SetOutputJSON("pruned", pruned),
		env.SetOutputJSON("urls", append([]string{}, result.URLs...)))
}

// tally counts objects by action, and rollouts by outcome.
func tally(result *handoff.DeployResult) string {
	actions, rollouts := map[handoff.Action]int{}, map[handoff.Rollout]int{}
	for _, o := range result.Objects {
		actions[o.Action]++
		rollouts[o.Rollout]++
	}
	var parts []string
	for _, a := range []handoff.Action{handoff.ActionCreated, handoff.ActionConfigured, handoff.ActionRecreated, handoff.ActionUnchanged, handoff.ActionFailed, handoff.ActionSkipped, handoff.ActionPruned, handoff.ActionKept} {
		if n := actions[a]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, a))
		}
	}
	text := strings.Join(parts, ", ")
	parts = nil
	for _, r := range []handoff.Rollout{handoff.RolloutReady, handoff.RolloutFailed, handoff.RolloutTimeout} {
		if n := rollouts[r]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, r))
		}
	}
	if len(parts) > 0 {
		text += "; rollouts: " + strings.Join(parts, ", ")
	}
	return text
}

// rolledBack says what the undoing of a failed deploy came to.
func rolledBack(r *handoff.Rollback) string {
	to := "what was there before the first deploy"
	if r.History > 0 {
		to = fmt.Sprintf("version %d", r.History)
	}
	if !r.Done {
		return fmt.Sprintf("**The rollback to %s failed:** %s", to, action.Cell(r.Message))
	}
	return fmt.Sprintf("Rolled back to %s, in %.1f s.", to, r.Seconds)
}

// summaryRows bounds the table: runners cut a summary at 1 MiB.
const summaryRows = 500

func summary(result *handoff.DeployResult, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### deploy-manifests\n\n%s in %.1f s, to `%s`\n\n", tally(result), took.Seconds(), action.Cell(result.Server))
	if result.History > 0 {
		fmt.Fprintf(&b, "Kept as version %d of the set %s.\n\n", result.History, action.Cell(result.Set))
	}
	if r := result.Rollback; r != nil {
		b.WriteString(rolledBack(r) + "\n\n")
	}
	for _, url := range result.URLs {
		fmt.Fprintf(&b, "- %s\n", action.Cell(url))
	}
	if len(result.URLs) > 0 {
		b.WriteString("\n")
	}
	rows := 0
	for _, o := range result.Objects {
		if o.Action == handoff.ActionUnchanged && o.Rollout != handoff.RolloutFailed && o.Rollout != handoff.RolloutTimeout {
			continue
		}
		if rows == 0 {
			b.WriteString("| object | action | rollout | seconds | |\n|---|---|---|---|---|\n")
		}
		if rows++; rows > summaryRows {
			b.WriteString("| … | | | | |\n")
			break
		}
		status, seconds := string(o.Rollout), ""
		if o.Rollout == handoff.RolloutNone {
			status = ""
		} else {
			seconds = fmt.Sprintf("%.1f", o.Seconds)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", action.Cell(o.ID()), o.Action, status, seconds, action.Cell(o.Message))
	}
	b.WriteString("\n")
	return b.String()
}
