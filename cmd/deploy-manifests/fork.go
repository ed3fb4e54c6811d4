package main

import (
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
)

// mode is the input mode, which in a pull request from a fork never writes to a cluster: it is diff where a kubeconfig or a token is
// given, and nothing, for the reason skipped, where none is. Credentials that lie on the runner do not count there.
func mode(env *action.Env, push *handoff.PushResult) (mode, skipped string) {
	mode = env.Text("mode")
	fork := env.Fork()
	if fork == "" {
		return mode, ""
	}
	given := env.Text("kubeconfig") != "" || env.Text("server") != "" && (env.Text("token") != "" || env.Text("token-file") != "")
	switch {
	case mode == "render" && push != nil && push.Skipped != "":
		return "", "nothing was pushed, so there are no digests to write, in a pull request from " + fork
	case mode == "render":
		return mode, ""
	case !given:
		return "", "no kubeconfig is given, in a pull request from " + fork
	}
	return "diff", ""
}

// leaveOut is a run without a cluster. The manifests were read and their images found, which is what can be said of them.
func leaveOut(env *action.Env, in inputs, result *handoff.DeployResult, start time.Time) error {
	result.DryRun, result.Skipped = true, in.skipped
	for _, o := range in.objects {
		result.Objects = append(result.Objects, handoff.DeployedObject{
			APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(),
			Source: o.Source.String(), Action: handoff.ActionSkipped, Rollout: handoff.RolloutNone,
		})
	}
	in.noteImages(result.Objects)
	env.LeaveOut("the deploy: %s; the manifests were read, and their images found", in.skipped)
	return write(env, result, time.Since(start), false)
}
