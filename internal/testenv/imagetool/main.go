// Imagetool is to the example monorepo what dockerTools and nix2container are to a real one: it writes container images in
// their formats, inside derivations that need neither nixpkgs nor network.
//
// It is for tests and the demo. It shares no code with the packages that read images, so that each side checks the other;
// its own measure are golden files made by the upstream tools.
//
// Usage, as a derivation's builder with structured attributes (out is the output, spec and graph the attributes):
//
//	imagetool archive        buildImage: one docker-archive, plain or compressed
//	imagetool customisation  streamLayeredImage: the layer of everything outside the store
//	imagetool conf           streamLayeredImage: conf.json
//	imagetool layers         nix2container.buildLayer: a folder with layers.json
//	imagetool image          nix2container.buildImage: image.json
//
// and as a program:
//
//	imagetool stream [--repo_tag NAME:TAG] [--root DIR] CONF   print the archive that conf.json describes
//	imagetool compress gz|zstd|none                            standard input to standard output
//
// A copy whose file name ends in "-stream", as the store names it, is the stream command.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "imagetool:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	if strings.HasSuffix(filepath.Base(args[0]), "-stream") {
		return streamCommand(args[1:], stdout)
	}
	if len(args) < 2 {
		return errors.New("no command; see the package documentation")
	}
	switch args[1] {
	case "stream":
		return streamCommand(args[2:], stdout)
	case "compress":
		if len(args) != 3 {
			return errors.New("compress: give one of gz, zstd, none")
		}
		return compress(stdout, stdin, args[2])
	case "archive":
		return inBuilder(buildArchive)
	case "customisation":
		return inBuilder(buildCustomisation)
	case "conf":
		return inBuilder(buildConf)
	case "layers":
		return inBuilder(buildLayers)
	case "image":
		return inBuilder(buildImage)
	}
	return fmt.Errorf("unknown command %q", args[1])
}

// target is where a builder writes and the closure it was given, from exportReferencesGraph.graph.
type target struct {
	out   string
	graph []node
	store store
}

// inBuilder runs f with the structured attributes of the derivation being built.
func inBuilder[Spec any](f func(target, Spec) error) error {
	// In the working folder, where Nix has put it since 2.0: $NIX_ATTRS_JSON_FILE is a path outside the sandbox in 2.8.
	const path = ".attrs.json"
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("not the builder of a derivation with __structuredAttrs: %w", err)
	}
	var attrs struct {
		Spec    Spec   `json:"spec"`
		Graph   []node `json:"graph"`
		Outputs struct {
			Out string `json:"out"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(text, &attrs); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return f(target{out: attrs.Outputs.Out, graph: attrs.Graph}, attrs.Spec)
}

func streamCommand(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("stream", flag.ContinueOnError)
	tag := flags.String("repo_tag", "", "NAME:TAG instead of the one in the configuration")
	flags.StringVar(tag, "t", "", "the same")
	root := flags.String("root", "", "folder that holds nix/store, for a store that is not at /")
	// As with Python's argparse, flags may follow the file: the image's script puts the file first.
	var file string
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return err
		}
		if args = flags.Args(); len(args) > 0 {
			if file != "" {
				return fmt.Errorf("stream: unexpected argument %q", args[0])
			}
			file, args = args[0], args[1:]
		}
	}
	s := store{root: *root}
	text, err := os.ReadFile(s.physical(file))
	if err != nil {
		return err
	}
	return s.stream(stdout, text, *tag)
}
