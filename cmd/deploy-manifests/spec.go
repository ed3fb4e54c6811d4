package main

import "github.com/flakeship/flakeship/internal/action"

var spec = action.Spec{
	Name:    "deploy-manifests",
	Summary: "puts pushed digests into Kubernetes manifests, applies what changed, waits until it runs and undoes what does not",
	Inputs: []action.Input{
		{Name: "manifests", Kind: action.List, Required: true, Help: "files, folders and globs of YAML or JSON; `-` is stdin", Example: "deploy/\ncrds/**/*.yaml"},
		{Name: "push-result", Kind: action.Document, Help: "the PushResult, whose digests are put in; empty: only the overrides of images are"},
		{Name: "images", Kind: action.List, Help: "overrides, `NAME=reference`: NAME is an image name of the push result, or a repository",
			Example: "redis=registry.example.org/mirror/redis:7@sha256:…"},
		{Name: "name", Help: "name of the set the objects belong to: what prune, lock and history are about; lower-case letters, digits and hyphens",
			Says: "the repository's name"},
		{Name: "namespace", Help: "namespace of objects without one, and of what the set keeps about itself", Says: "that of the kubeconfig"},
		{Name: "kubeconfig", Help: "path of a kubeconfig, or its content, plain or in base64", Says: "`KUBECONFIG`, else the service account of the pod this runs in"},
		{Name: "context", Help: "context of the kubeconfig", Says: "its current context"},
		{Name: "server", Help: "URL of the API server, instead of a kubeconfig", Example: "https://cluster.example.org:6443"},
		{Name: "token", Secret: true, Help: "bearer token; with a kubeconfig it takes the place of the user's credentials"},
		{Name: "ca", Help: "certificate authority of `server`, as PEM or a path", Says: "those of the system"},
		{Name: "prune", Kind: action.Bool, Default: "true", Help: "delete what was deployed before and has left the manifests, once everything else runs"},
		{Name: "prune-limit", Kind: action.Int, Default: "10", Help: "refuse to deploy when more objects than this would be deleted"},
		{Name: "wait", Kind: action.Bool, Default: "true", Help: "wait until everything is ready, and find out early what never will be"},
		{Name: "timeout", Kind: action.Duration, Default: "10m", Help: "longest time for the whole step"},
		{Name: "on-failure", Kind: action.Choice, Choices: []string{"rollback", "leave"}, Default: "rollback",
			Help: "what becomes of a deploy that does not run: `rollback` goes back to the last one that did, `leave` leaves it as it is"},
		{Name: "rollback-timeout", Kind: action.Duration, Default: "5m", Help: "longest time for the rollback, which begins when timeout may be over"},
		{Name: "lock-timeout", Kind: action.Duration, Default: "5m", Help: "longest wait for another run that deploys the same set"},
		{Name: "allow-older", Kind: action.Bool, Default: "false", Help: "deploy even when a newer commit was deployed before"},
		{Name: "conflicts", Kind: action.Choice, Choices: []string{"safe", "force", "fail"}, Default: "safe",
			Help: "fields that somebody else owns: `safe` leaves scaled replicas alone and refuses the rest, `force` takes all, `fail` refuses all"},
		{Name: "require-digests", Kind: action.Bool, Default: "true", Help: "refuse an image of the push result's registry that ends up without a digest"},
	},
	Outputs: []action.Output{
		{Name: "deploy-result", Help: "path of the DeployResult"},
		{Name: "deploy-result-json", Help: "the DeployResult itself, when it is shorter than 60 kB"},
		{Name: "changed", Help: "`true` when an object was created or configured"},
		{Name: "applied", Help: "objects that were created or configured, as a JSON array of `kind/namespace/name`"},
		{Name: "pruned", Help: "objects that were deleted, as a JSON array of `kind/namespace/name`"},
	},
}
