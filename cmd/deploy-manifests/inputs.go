package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
	"github.com/flakeship/flakeship/internal/resolve"
)

// inputs is what a run works on. Nothing has been sent anywhere when it is complete.
type inputs struct {
	push    *handoff.PushResult // nil: none was given
	objects []manifest.Object   // images pinned
	pinned  []handoff.PinnedImage
	edits   []manifest.Edit  // the same, place by place
	cluster *cluster.Cluster // nil when none takes part
	name    string           // of the set
	mode    string           // apply, diff or render; empty: nothing is asked of a cluster, for the reason
	skipped string
}

// readInputs reads everything that is given and reports all that is wrong with it together.
func readInputs(ctx context.Context, env *action.Env) (in inputs, err error) {
	var problems []error
	report := func(err error) { problems = append(problems, err) }

	if text := env.Text("push-result"); text != "" {
		in.push = new(handoff.PushResult)
		if err := loadPush(text, in.push, env.Fork() != ""); err != nil {
			report(err)
			in.push = nil
		}
	}
	table, err := resolve.New(in.push, env.List("images"))
	for _, err := range split(err) {
		report(action.Fail(action.BadInput, fmt.Errorf("input images: %w", err), "give NAME=reference, one per line, such as redis=registry.example.org/redis:7"))
	}
	if table != nil {
		for _, err := range split(table.Declare(env.List("image-fields"))) {
			report(action.Fail(action.BadInput, fmt.Errorf("input image-fields: %w", err), "give KIND.GROUP=PATH, one per line, such as Fleet.example.org=spec.pools[].image"))
		}
	}
	if limit := env.Int("prune-limit"); limit < 0 {
		report(action.Fail(action.BadInput, fmt.Errorf("input prune-limit is %d", limit), "give a number; 0 deletes nothing"))
	}
	in.mode, in.skipped = mode(env, in.push)
	namespace, render := env.Text("namespace"), env.Text("mode") == "render"
	switch {
	case render && env.Text("out-dir") == "":
		report(action.Fail(action.BadInput, errors.New("mode is render, but input out-dir is empty"), "give the folder that the manifests are written to"))
	case !render && env.Text("out-dir") != "":
		report(action.Fail(action.BadInput, fmt.Errorf("input out-dir is given, but mode is %s", env.Text("mode")), "set mode: render, or leave out-dir out"))
	}
	if in.mode == "apply" || in.mode == "diff" {
		if in.cluster, err = openCluster(env); err != nil {
			report(explainCluster(err))
		} else {
			namespace = in.cluster.Namespace
		}
		if in.name, err = setName(env); err != nil {
			report(err)
		}
	}
	if in.objects, err = manifest.Read(ctx, env.List("manifests"), env.Stdin); err != nil {
		report(explainManifests(err))
	}
	if len(problems) > 0 {
		return in, errors.Join(problems...)
	}

	if err := manifest.Unique(in.objects, namespace); err != nil {
		report(explainManifests(err))
	}
	result := table.Objects(in.objects, resolve.Options{RequireDigests: env.Bool("require-digests"), Unused: env.List("unused-images")})
	in.pinned, in.edits = result.Pinned, result.Edits
	for _, warning := range result.Warnings {
		env.Warnf("%s", warning)
	}
	if len(result.Problems) > 0 {
		report(explainImages(&manifest.Error{Problems: result.Problems}))
	}
	return in, errors.Join(problems...)
}

// noteImages notes in each object which images of the push result it runs.
func (in *inputs) noteImages(objects []handoff.DeployedObject) {
	if in.push == nil {
		return
	}
	names := map[string]string{}
	for _, image := range in.push.Images {
		names[resolve.Reference(image)] = image.Name
	}
	pinned := map[string][]string{} // by source
	for _, edit := range in.edits {
		if name, ok := names[edit.New]; ok {
			pinned[edit.Source.String()] = append(pinned[edit.Source.String()], name)
		}
	}
	for i := range objects {
		found := slices.Sorted(slices.Values(pinned[objects[i].Source]))
		objects[i].Images = slices.Compact(found)
	}
}

// loadPush reads a push result that everything can be deployed from. In a pull request from a fork it may be one of which nothing was
// sent: nothing is written to a cluster then.
func loadPush(text string, push *handoff.PushResult, fork bool) error {
	if err := handoff.Load(text, push); err != nil {
		return explainDocument(err)
	}
	if missing := handoff.MissingParts(push.Parts); push.Complete && len(missing) > 0 {
		return action.Fail(action.Conflict, fmt.Errorf("the push result lacks a part of the plan: %s", strings.Join(missing, ", ")),
			"join the results of all parts with the input push-result of push-images, and give what comes of it")
	}
	if push.Complete || fork && push.Skipped != "" {
		return nil
	}
	if push.Skipped != "" {
		return action.Fail(action.Conflict, fmt.Errorf("nothing was pushed: %s", push.Skipped), "deploy from a run of a branch of this repository; what a fork's run hands over is not to be trusted")
	}
	if push.DryRun {
		return action.Fail(action.Conflict, errors.New("the push result is of a dry run"), "run push-images without dry-run first")
	}
	var missing []string
	for _, image := range push.Images {
		if image.State == handoff.PushFailed {
			missing = append(missing, image.Name)
		}
	}
	err := errors.New("the push result is not complete")
	if len(missing) > 0 {
		err = fmt.Errorf("%w: %s could not be pushed", err, strings.Join(missing, ", "))
	}
	return action.Fail(action.Conflict, err, "run push-images again until it succeeds; what it pushed already is not sent twice")
}

func openCluster(env *action.Env) (*cluster.Cluster, error) {
	c, err := cluster.Open(cluster.Options{
		Server:     env.Text("server"),
		CA:         env.Text("ca"),
		Token:      env.Text("token"),
		TokenFile:  env.Text("token-file"),
		As:         env.Text("as"),
		AsGroups:   env.List("as-groups"),
		Kubeconfig: env.Text("kubeconfig"),
		Context:    env.Text("context"),
		Namespace:  env.Text("namespace"),
		UserAgent:  "flakeship/" + action.Version + " (deploy-manifests)",
		Getenv:     env.Getenv,
		Warn:       func(text string) { env.Warnf("the API server warns: %s", text) },
	})
	if err != nil {
		return nil, err
	}
	for _, secret := range c.Secrets {
		env.Mask(secret)
	}
	return c, nil
}

// split takes errors.Join apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
