package main

import "github.com/flakeship/flakeship/internal/action"

var spec = action.Spec{
	Name:    "nix-build-images",
	Summary: "builds the images of a Plan that no cache serves, fetches the others, and copies the result to a cache",
	Inputs: []action.Input{
		{Name: "plan", Example: "plan.json", Kind: action.Document, Required: true, Help: "the Plan of nix-cache-check"},
		{Name: "shard", Default: "1/1", Help: "which part of the plan to build, when nix-cache-check cut it into several", Example: "2/4"},
		{Name: "copy-to", Help: "cache URL finished closures are copied to: https, http, s3, file, or a store behind ssh-ng; empty: they are not", Example: "https://cache.example.org"},
		{Name: "signing-key", Example: "the secret CACHE_SIGNING_KEY", Secret: true, Help: "Nix secret key the copied paths are signed with, as name:base64"},
		{Name: "signing-key-file", Example: "/run/secrets/cache-key", Help: "path of a file with that key, instead of signing-key"},
		{Name: "copy-missing-from", Example: "https://cache.nixos.org", Kind: action.List, Help: "caches that serve what they have to those who fetch from copy-to: such a path is not copied; `none`: everything is", Says: "those of the plan"},
		{Name: "netrc-file", Example: "/run/secrets/netrc", Help: "path of a netrc file with credentials for private caches", Says: "that of the installed Nix"},
		{Name: "builders", Help: "remote builders, as in nix.conf", Example: "ssh-ng://builder.example.org aarch64-linux", Says: "those of the installed Nix"},
		{Name: "remote-store", Help: "store on another machine that builds instead of this one; images are copied here from there", Example: "ssh-ng://builder.example.org", Says: "none"},
		{Name: "max-jobs", Example: "4", Help: "derivations built at the same time, or `auto`", Says: "that of the installed Nix"},
		{Name: "cores", Kind: action.Int, Help: "cores one builder may use; 0: all", Says: "those of the installed Nix"},
		{Name: "keep-going", Kind: action.Bool, Default: "true", Help: "build the others when one fails"},
		{Name: "log-lines", Kind: action.Int, Default: "40", Help: "last lines of a failed builder's output to show and keep"},
		{Name: "attest", Kind: action.List, Help: "what push-images attests of each image: `provenance`, `sbom`; for the latter closures are written down when they are built", Example: "provenance\nsbom", Says: "nothing"},
		{Name: "signed", Kind: action.Bool, Default: "false",
			Help: "push-images signs the images: then it reads each layer of a stream image, and those are fetched even when the registry has them"},
		{Name: "timeout", Kind: action.Duration, Default: "2h", Help: "longest time for the whole step"},
		{Name: "copy-timeout", Kind: action.Duration, Default: "15m", Help: "longest time for the copy to the cache, from when the last build is over"},
	},
	Outputs: []action.Output{
		{Name: "build-result", Help: "path of the BuildResult"},
		{Name: "build-result-json", Help: "the BuildResult itself; over 60 kB it is packed, and the inputs that take it take that too"},
		{Name: "built", Help: "names of the images that were built, as a JSON array"},
		{Name: "substituted", Help: "names of the images that were fetched from a cache, as a JSON array"},
		{Name: "failed", Help: "names of the images that could not be built, as a JSON array"},
		{Name: "has-failures", Help: "`true` when an image could not be built"},
	},
}
