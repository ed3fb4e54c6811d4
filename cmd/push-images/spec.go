package main

import "github.com/flakeship/flakeship/internal/action"

var spec = action.Spec{
	Name:    "push-images",
	Summary: "pushes images that Nix built, of every family, and sends only the layers the registry lacks",
	Inputs: []action.Input{
		{Name: "build-result", Kind: action.Documents,
			Help: "one or several BuildResults; images of one name and several systems become an index; this or image is needed"},
		{Name: "image", Kind: action.List, Help: "images to push as if built, as name=path or name:tag=path", Example: "api=./result\nweb:v1=./web.tar.gz"},
		{Name: "registry", Help: "prefix of the repositories: host, and path if there is one; needed unless oci-layout is given", Example: "registry.example.org/team"},
		{Name: "registry-username", Help: "user at the registry", Says: "docker config, credential helpers"},
		{Name: "registry-password", Secret: true, Help: "password or token that may write packages", Says: "docker config, credential helpers"},
		{Name: "tags", Kind: action.List, Example: "{branch}\n{shortsha}",
			Help: "tags beside the Nix hash, moved when every image is in; `{branch}`, `{sha}`, `{shortsha}` and `{date}` are filled in"},
		{Name: "learn-tags", Kind: action.List, Help: "tags of images whose layers are looked for first", Says: "the extra tags"},
		{Name: "no-learn", Kind: action.Bool, Default: "false",
			Help: "compress every layer anew instead of believing what the registry says of its images; what it has is still not sent again"},
		{Name: "verify-reuse", Kind: action.Bool, Default: "false",
			Help: "ask for each layer that is not sent, for registries that collect layers their images still need"},
		{Name: "format", Kind: action.Choice, Choices: []string{"oci", "docker"}, Default: "oci",
			Help: "media types of what is written; docker's have no zstd and no annotations"},
		{Name: "compression", Kind: action.Choice, Choices: []string{"gzip", "zstd", "none"}, Default: "gzip",
			Help: "how layers are sent; zstd is smaller, and too new for some runtimes"},
		{Name: "compression-level", Kind: action.Int, Says: "5 for gzip, 3 for zstd", Help: "1 is the fastest; gzip goes up to 9, zstd to 22"},
		{Name: "jobs", Kind: action.Int, Default: "8", Help: "requests in flight per registry host"},
		{Name: "insecure-registries", Kind: action.List, Help: "hosts, with port, that are spoken to over plain http; loopback ones need not be named",
			Example: "registry.lan:5000"},
		{Name: "ca-file", Help: "file with certificates, as PEM, that are trusted for the registry beside the system's"},
		{Name: "oci-layout", Help: "folder that gets the images too, as an OCI layout whose images are called name:tag; without registry, it alone gets them"},
		{Name: "dry-run", Kind: action.Bool, Default: "false", Help: "do everything but write, and say what would be sent"},
		{Name: "timeout", Kind: action.Duration, Default: "30m", Help: "longest time for the whole step"},
	},
	Outputs: []action.Output{
		{Name: "push-result", Help: "path of the PushResult"},
		{Name: "push-result-json", Help: "the PushResult itself, when it is shorter than 60 kB"},
		{Name: "digests", Help: "digest of each image in the registry, as a JSON object by name"},
		{Name: "images", Help: "repository:tag@digest of each image in the registry, as a JSON object by name"},
		{Name: "uploaded-bytes", Help: "bytes of layers, configs and manifests that were sent"},
	},
}
