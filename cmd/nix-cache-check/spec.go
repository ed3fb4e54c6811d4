package main

import "github.com/flakeship/flakeship/internal/action"

var spec = action.Spec{
	Name:    "nix-cache-check",
	Summary: "finds a flake's container images and says for each whether it is to be built, pushed, or left alone",
	Inputs: []action.Input{
		{Name: "flake", Default: ".", Help: "flake reference, a folder or URL without #", Example: "./infra"},
		{Name: "attributes", Kind: action.List, Help: "names of packages, or globs; `!glob` excludes", Example: "api\n!*-debug",
			Says: "every derivation under `packages.<system>` that is a container image"},
		{Name: "systems", Kind: action.List, Help: "Nix systems to look at", Example: "x86_64-linux", Says: "the runner's"},
		{Name: "substituters", Kind: action.List, Help: "cache URLs in order: https, http, file, s3; ssh-ng and other stores through the installed Nix", Example: "https://cache.example.org",
			Says: "those of the installed Nix"},
		{Name: "trusted-public-keys", Kind: action.List, Help: "keys whose signatures are trusted, as name:base64", Example: "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
			Says: "those of the installed Nix"},
		{Name: "netrc-file", Help: "path of a netrc file with credentials for private caches", Says: "that of the installed Nix"},
		{Name: "registry", Help: "prefix images are pushed to; empty: the registry is not asked, and every image is to be pushed", Example: "registry.example.org/team"},
		{Name: "registry-username", Help: "user at the registry", Says: "docker config, credential helpers"},
		{Name: "registry-password", Secret: true, Help: "password or token at the registry", Says: "docker config, credential helpers"},
		{Name: "insecure-registries", Kind: action.List, Help: "hosts, with port, that are spoken to over plain http; loopback ones need not be named",
			Example: "registry.lan:5000"},
		{Name: "ca-file", Help: "file with certificates, as PEM, that are trusted for the registry beside the system's"},
		{Name: "on-cache-error", Kind: action.Choice, Choices: []string{"fail", "build"}, Default: "fail",
			Help: "what follows when a cache fails and no other serves the image"},
		{Name: "eval-workers", Kind: action.Int, Help: "Nix processes that evaluate at the same time, at most; one does while more would not pay", Says: "the number of processors"},
		{Name: "eval-memory", Kind: action.Int, Default: "4096", Help: "MiB for all of them; a process over its share starts again where it was"},
		{Name: "verify-nars", Kind: action.Bool, Default: "false", Help: "also ask whether the NAR behind each narinfo is there, one request more per path"},
		{Name: "plan-cache", Help: "folder that keeps evaluations: the same tree, lock file, Nix and attributes are not evaluated again. Keep it from run to run, such as with actions/cache",
			Example: ".cache/flakeship"},
		{Name: "timeout", Kind: action.Duration, Default: "10m", Help: "longest time for the whole step"},
	},
	Outputs: []action.Output{
		{Name: "plan", Help: "path of the Plan"},
		{Name: "plan-json", Help: "the Plan itself, when it is shorter than 60 kB"},
		{Name: "images", Help: "names of all images, as a JSON array"},
		{Name: "to-build", Help: "names of the images to build, as a JSON array"},
		{Name: "to-push", Help: "names of the images to push, as a JSON array"},
		{Name: "has-work", Help: "`true` when an image is to be built or pushed"},
		{Name: "all-cached", Help: "`true` when each image is in the registry or served by a cache"},
		{Name: "counts", Help: "images per state, as a JSON object"},
		{Name: "matrix", Help: "the images with work, as `{\"include\": [{name, attr, system, shard}]}`; not to be used when `has-work` is `false`"},
	},
}
