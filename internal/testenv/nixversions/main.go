// Command nixversions runs a command once with each Nix that the tests care about and the machine does not have, first on PATH:
//
//	go run ./internal/testenv/nixversions go test -count=1 ./internal/nix
//	go run ./internal/testenv/nixversions -only sid nix --version
//
// They are those of newer Debian suites. Their packages are downloaded and unpacked below the user's cache folder, once; nothing
// is installed. Where that cannot be done, it says so and the command is not run: a machine that is no Debian, or offline, still
// passes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suites are Debian's names of the releases with Nix 2.26 and 2.34. Debian 12 has 2.8, which tests run on without this program.
var suites = []string{"trixie", "sid"}

func main() {
	only := flag.String("only", "", "one of "+strings.Join(suites, ", "))
	flag.Parse()
	if flag.NArg() == 0 || *only != "" && !slices.Contains(suites, *only) {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := false
	for _, suite := range suites {
		if *only != "" && *only != suite {
			continue
		}
		bin, err := prepare(ctx, suite)
		if err != nil {
			say("SKIPPED: no tests with the Nix of Debian %s: %v", suite, err)
			failed = failed || errors.Is(err, context.Canceled)
			continue
		}
		start := time.Now()
		version, err := run(ctx, bin, flag.Args())
		switch {
		case err != nil:
			failed = true
			say("FAILED with %s of Debian %s: %v", version, suite, err)
		default:
			say("ok with %s of Debian %s, in %.0f s", version, suite, time.Since(start).Seconds())
		}
	}
	if failed {
		os.Exit(1)
	}
}

func say(format string, a ...any) { fmt.Fprintf(os.Stderr, "nixversions: "+format+"\n", a...) }

// run runs a command with a folder of programs first on PATH.
func run(ctx context.Context, bin string, args []string) (version string, err error) {
	banner, err := exec.CommandContext(ctx, filepath.Join(bin, "nix"), "--version").Output()
	version = strings.TrimSpace(string(banner))
	if err != nil {
		return version, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return version, cmd.Run()
}
