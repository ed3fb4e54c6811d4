package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/deployset"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

// render writes the manifests with their images pinned to the folder out-dir. No cluster takes part.
func render(env *action.Env, in inputs, result *handoff.DeployResult, start time.Time) error {
	files, err := manifest.Rewrite(in.objects, in.edits)
	if err != nil {
		return explainManifests(err)
	}
	dir := env.Text("out-dir")
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = replace(path, f.Text)
		}
		if err != nil {
			return action.Fail(action.Failed, fmt.Errorf("input out-dir: %w", err), "give a folder that can be written")
		}
	}
	result.DryRun = true
	env.Infof("rendered: %s, %s pinned, to %s, in %.1f s", action.Count(len(files), "file"), action.Count(len(in.edits), "image"), dir, time.Since(start).Seconds())
	_, err = env.WriteResult(result)
	return errors.Join(err, env.SetOutput("changed", "false"), env.SetOutputJSON("applied", []string{}))
}

// replace writes a file whole or not at all.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".flakeship-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// diffLines bounds what of a diff the log and the summary show; the file has all of it.
const diffLines = 500

// showDiff shows what a deploy would change, and what it would restart. Nothing is written to the cluster.
func showDiff(ctx context.Context, env *action.Env, in inputs, result *handoff.DeployResult, start time.Time) error {
	fork := env.Fork() != ""
	if fork {
		env.LeaveOut("every write to %s: what the deploy would change is shown", in.cluster.Server)
	}
	set := deployset.New(in.cluster, in.name)
	kinds, err := in.cluster.Discover(ctx)
	if err != nil {
		return explainRequest(err, in.cluster.Server)
	}
	if err := set.Open(ctx); err != nil && !(fork && cluster.Diagnose(err).Class == cluster.Denied) { // the set is kept in a Secret
		return explainSet(err, in.cluster.Server)
	}
	set.Mark(in.objects)
	changes, err := apply.Objects(ctx, in.cluster, in.objects, apply.Options{Conflicts: apply.Policy(env.Text("conflicts")), DryRun: true, ReadOnly: fork, Kinds: kinds, Refuse: set.Refuse,
		Mask: masker(in.objects, os.Environ()), Watched: env.Bool("wait")})
	result.DryRun = true
	result.Objects = newRollouts(env, in.cluster, nil).deployed(changes)
	in.noteImages(result.Objects)
	if err != nil {
		return errors.Join(explainApply(err, in.cluster.Server), write(env, result, time.Since(start), false))
	}
	if env.Bool("prune") {
		former, err := set.Former(ctx, kinds, in.objects, apply.FieldManager)
		if err != nil && fork && cluster.Diagnose(err).Class == cluster.Denied {
			env.Warnf("what would be pruned is not known: %v", err)
		} else if err != nil {
			return explainSet(err, in.cluster.Server)
		}
		for _, m := range former {
			if m.Kept == "" {
				result.Objects = append(result.Objects, handoff.DeployedObject{APIVersion: m.Kind.GroupVersion().String(), Kind: m.Kind.Kind, Namespace: m.Namespace, Name: m.Name,
					Action: handoff.ActionPruned, Rollout: handoff.RolloutNone})
				env.Infof("%-10s  %s", handoff.ActionPruned, m.ID())
			}
		}
	}
	for _, o := range result.Objects {
		result.Changed = result.Changed || isChange(o.Action) || o.Action == handoff.ActionPruned
	}
	diff := apply.Diff(changes)
	path, err := env.WriteTemp("deploy", ".diff", []byte(diff))
	if err != nil {
		return err
	}
	shown := diff
	if lines := strings.SplitAfterN(diff, "\n", diffLines+1); len(lines) > diffLines {
		shown = strings.Join(lines[:diffLines], "") + "… the rest is in " + path + "\n"
	}
	log := env.Foreign("")
	_, err = log.Write([]byte(shown))
	err = errors.Join(err, log.Close())
	env.EndForeign()
	for _, c := range changes {
		if c.Message != "" && isChange(c.Action) {
			env.Infof("%s: %s", c.Object.ID(), c.Message)
		}
	}
	restarts := apply.Restarts(changes)
	for _, id := range restarts {
		env.Infof("restarts    %s", id)
	}
	env.Infof("diff: %s, in %.1f s; nothing was written", tally(result), time.Since(start).Seconds())
	env.Summary("", diffSummary(result, shown, restarts))
	_, written := env.WriteResult(result)
	return errors.Join(err, written, env.SetOutput("diff-file", path), env.SetOutput("changed", fmt.Sprint(result.Changed)), env.SetOutputJSON("applied", []string{}))
}

func diffSummary(result *handoff.DeployResult, diff string, restarts []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### deploy-manifests would change\n\n%s, on `%s`\n\n", tally(result), action.Cell(result.Server))
	for _, id := range restarts {
		fmt.Fprintf(&b, "- %s restarts\n", action.Cell(id))
	}
	if diff != "" {
		b.WriteString("\n" + action.Pre(diff) + "\n")
	}
	return b.String()
}
