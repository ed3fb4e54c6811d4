package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
	"github.com/flakeship/flakeship/internal/rollout"
)

func explainDocument(err error) error {
	if errors.Is(err, handoff.ErrUnreadable) {
		return action.Fail(action.BadInput, err, "give the path that push-images gives as its output push-result, or the JSON of push-result-json")
	}
	return action.Fail(action.Conflict, err, "run push-images again, and give its result as it is")
}

// explainManifests explains what manifest.Read and manifest.Unique return.
func explainManifests(err error) error {
	var bad *manifest.Error
	if !errors.As(err, &bad) {
		return err
	}
	hint := "correct the file; nothing was applied"
	switch text := bad.Problems[0].Text; {
	case strings.Contains(text, "is given twice, again at"):
		hint = "remove one of the two; nothing was applied"
	case strings.Contains(text, "not YAML"):
		hint = "correct the file's YAML; a template has to be rendered first"
	case strings.Contains(text, "cannot be read"), strings.Contains(text, "no file matches"), strings.Contains(text, "in this folder"):
		hint = "the input manifests takes files, folders and globs, one per line"
	}
	return listed(action.Fail(action.BadInput, err, "%s", hint), len(bad.Problems), bad.List())
}

func explainImages(bad *manifest.Error) error {
	hint := "correct the image's name, build and push that image too, or give it in the input images; require-digests: false lets it pass"
	switch text := bad.Problems[0].Text; {
	case strings.Contains(text, "is no image reference"):
		hint = "write the image as repository:tag or repository@digest; placeholders have to be filled in before, but for flakeship:NAME"
	case strings.Contains(text, "is named by no object"):
		hint = "name the image in a manifest, or in the input unused-images if it runs elsewhere; require-digests: false lets it pass"
	}
	return listed(action.Fail(action.BadInput, bad, "%s", hint), len(bad.Problems), bad.List())
}

// listed shows all problems above the error line when there are several.
func listed(f *action.Failure, n int, list string) *action.Failure {
	if n > 1 {
		f.Detail = list
	}
	return f
}

// explainCluster explains what cluster.Open returns.
func explainCluster(err error) error {
	var option *cluster.OptionError
	switch {
	case errors.Is(err, cluster.ErrNoCluster):
		return action.Fail(action.BadInput, err, "give the input kubeconfig, or server and token")
	case errors.As(err, &option):
		return action.Fail(action.BadInput, fmt.Errorf("input %w", err), "correct the input; kubeconfig takes a path or the content, ca a path or PEM")
	}
	return err
}

// explainRun explains what ended a run: an object that was refused, or what became of one that was applied.
func explainRun(err error, server string) error {
	var awaited *rolloutError
	if errors.As(err, &awaited) {
		return explainRollout(awaited.error, server)
	}
	return explainApply(err, server)
}

// explainApply explains what apply.Objects returns.
func explainApply(err error, server string) error {
	var refused *apply.Error
	var bad *manifest.Error
	var failure *action.Failure
	switch {
	case err == nil || errors.As(err, &failure): // the latter from what is done before the first write
		return err
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("objects were still being applied: %w", err)
	case errors.As(err, &bad):
		return explainManifests(err)
	case errors.As(err, &refused):
		return explainRefused(refused)
	}
	return explainRequest(err, server)
}

// explainRequest explains a request that failed for a reason that is not about one object.
func explainRequest(err error, server string) error {
	reason := cluster.Diagnose(err)
	const wrongURL = "give the URL of a Kubernetes API server in the input server or the kubeconfig"
	if errors.Is(err, cluster.ErrNotAPIServer) {
		return action.Fail(action.Failed, fmt.Errorf("%s: %w", server, err), wrongURL)
	}
	switch reason.Class {
	case cluster.Unreachable:
		f := action.Fail(action.Failed, fmt.Errorf("the API server %s cannot be reached: %s", server, reason.Text),
			"check the input server or kubeconfig, and whether the runner can reach it")
		if reason.TLS {
			f.Hint = "give the cluster's certificate authority in the input ca, or in the kubeconfig"
		}
		return f
	case cluster.Credentials:
		return action.Fail(action.Denied, fmt.Errorf("%s: %s", server, reason.Text), "give a token or kubeconfig that is valid now")
	case cluster.Denied:
		return action.Fail(action.Denied, fmt.Errorf("%s: %s", server, reason.Text), "%s", grant(reason))
	case cluster.Absent:
		return action.Fail(action.Failed, fmt.Errorf("%s: %s", server, reason.Text), wrongURL)
	}
	return action.Fail(action.Failed, fmt.Errorf("%s: %s", server, reason.Text), "run it again: what is applied already is not applied twice")
}

func explainRefused(e *apply.Error) error {
	worst := e.Problems[0]
	for _, p := range e.Problems {
		if p.Reason.Class == e.Class() {
			worst = p
			break
		}
	}
	code, hint := action.BadInput, "correct the manifest"
	switch e.Class() {
	case cluster.Other:
		code, hint = action.Failed, "run it again when the cluster has recovered"
	case cluster.Conflict:
		code, hint = action.Conflict, "leave the field out of the manifest, make its owner let go of it, or take it over with conflicts: force"
	case cluster.Denied:
		code, hint = action.Denied, grant(worst.Reason)
	case cluster.Immutable:
		hint = "delete the object first, or leave that field as it is"
	}
	if worst.Hint != "" {
		hint = worst.Hint
	}
	what := "nothing was applied: "
	if e.Written {
		what = "the objects before it were applied: "
	}
	err := fmt.Errorf("%s%w", what, e)
	if len(e.Problems) > 1 {
		err = fmt.Errorf("%s%d objects are refused, among them %s", what, len(e.Problems), worst)
	}
	f := listed(action.Fail(code, err, "%s", hint), len(e.Problems)+len(worst.Reason.Conflicts), e.List())
	f.Detail += roles(e)
	return f
}

// roles are the Roles that are missing, as YAML.
func roles(e *apply.Error) string {
	type place struct{ namespace, group string }
	resources := map[place][]string{}
	for _, p := range e.Problems {
		if r := p.Reason.Missing; r != nil {
			at := place{r.Namespace, r.Group}
			resources[at] = append(resources[at], r.Resource)
		}
	}
	var b strings.Builder
	last := ""
	for _, at := range slices.SortedFunc(maps.Keys(resources), func(a, b place) int { return strings.Compare(a.namespace+" "+a.group, b.namespace+" "+b.group) }) {
		head := "kind: ClusterRole\nmetadata: {name: flakeship}\n"
		if at.namespace != "" {
			head = fmt.Sprintf("kind: Role\nmetadata: {name: flakeship, namespace: %s}\n", at.namespace)
		}
		if head != last {
			b.WriteString("apiVersion: rbac.authorization.k8s.io/v1\n" + head + "rules:\n")
			last = head
		}
		slices.Sort(resources[at])
		fmt.Fprintf(&b, "- {apiGroups: [%q], resources: [%s], verbs: [%s]}\n", at.group, strings.Join(slices.Compact(resources[at]), ", "), verbs)
	}
	return b.String()
}

// verbs are what a deploy needs of each kind in the manifests.
const verbs = "get, list, watch, create, patch, delete"

// grant is the Role that is missing, in a sentence.
func grant(reason cluster.Diagnosis) string {
	r := reason.Missing
	if r == nil {
		return "a policy of the cluster is against it: ask who runs the cluster"
	}
	role := "a ClusterRole"
	if r.Namespace != "" {
		role = "a Role in namespace " + r.Namespace
	}
	return fmt.Sprintf("grant it with %s: apiGroups [%q], resources [%q], verbs [%s]", role, r.Group, r.Resource, verbs)
}

// explainRollout explains what rollout.Wait returns.
func explainRollout(err error, server string) error {
	var failed *rollout.FailedError
	var late *rollout.TimeoutError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("rollouts were still awaited: %w", err)
	case errors.As(err, &failed):
		o := failed.Failed[0].Live
		f := action.Fail(action.RolloutFailed, err, "mend what it names and deploy again; kubectl -n %s describe %s %s shows more",
			o.GetNamespace(), strings.ToLower(o.GetKind()), o.GetName())
		f.Detail = outcomes(failed.Failed)
		return f
	case errors.As(err, &late):
		o := late.Waiting[0].Live
		f := action.Fail(action.TimedOut, err, "give a longer timeout if it is only slow; kubectl -n %s describe %s %s shows more",
			o.GetNamespace(), strings.ToLower(o.GetKind()), o.GetName())
		f.Detail = outcomes(late.Waiting)
		return f
	}
	return explainRequest(err, server)
}

// outcomes explains each object: what is wrong with it, the warnings about it, its last words.
func outcomes(all []rollout.Outcome) string {
	var b strings.Builder
	for _, o := range all {
		if len(all) > 1 || o.Detail != "" {
			fmt.Fprintf(&b, "%s\n%s", o, o.Detail)
		}
	}
	return b.String()
}
