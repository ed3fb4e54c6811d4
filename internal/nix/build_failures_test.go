package nix

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Nix before 2.31 ends its whole run at a derivation that nobody here can build.
func TestUnbuildableImagesDoNotStopTheOthers(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"foreign": `derivation { name = "image-foreign"; system = "riscv64-linux"; builder = "/bin/sh"; } // { imageName = "foreign"; }`,
		"feature": `image "feature" "echo > $out" { requiredSystemFeatures = [ "quantum" ]; }`,
		"needs":   `image "needs" "echo > $out" { dep = mk "quantum-dep" "echo > $out" { requiredSystemFeatures = [ "quantum" ]; }; }`,
		"fine":    `image "fine" "echo > $out" {}`,
		"late":    `image "late" "busybox sleep 0.2; echo > $out" {}`,
	})
	flake, targets := plan(t, n, dir)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	got := states(built)
	for name, want := range map[string]string{
		"foreign": "failed image-foreign: it is to be built on riscv64-linux; this machine is x86_64-linux",
		"feature": "failed image-feature: ", "needs": "failed quantum-dep: ", "fine": "built", "late": "built",
	} {
		if !strings.HasPrefix(got[name], want) {
			t.Errorf("%s: %s, want %s…", name, got[name], want)
		}
	}
	for _, name := range []string{"feature", "needs"} {
		if !strings.Contains(got[name], "quantum") {
			t.Errorf("%s: %s, want the feature named", name, got[name])
		}
	}
}

func TestTimedOutImages(t *testing.T) {
	n, store := open(t, "timeout = 1", "max-jobs = 4")
	dir := flake(t, store, map[string]string{
		"slow":  `image "slow" "echo waiting; busybox sleep 60" {}`,
		"needs": `image "needs" "echo > $out" { dep = mk "slow-dep" "echo waiting; busybox sleep 60" {}; }`,
		"bad":   `image "bad" "exit 1" {}`,
		"fine":  `image "fine" "echo > $out" {}`,
	})
	flake, targets := plan(t, n, dir)
	start := time.Now()
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"slow": "failed image-slow: timed out after 1 seconds", "needs": "failed slow-dep: timed out after 1 seconds",
		"bad": "failed image-bad: builder failed with exit code 1", "fine": "built",
	}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s: what timed out was tried again", took)
	}
}

func TestStopAtTheFirstFailure(t *testing.T) {
	n, store := open(t, "max-jobs = 1")
	dir := flake(t, store, map[string]string{
		"a-bad": `image "a-bad" "exit 1" {}`,
		"z":     `image "z" "cat $dep; echo > $out" { dep = mk "slow" "busybox sleep 3; echo > $out" {}; }`,
	})
	flake, targets := plan(t, n, dir)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake})
	if err != nil {
		t.Fatal(err)
	}
	got := states(built)
	if !strings.HasSuffix(got["a-bad"], "exit code 1") || !strings.Contains(got["z"], "keep-going is off") {
		t.Errorf("Build = %v, want z not built because of a-bad", got)
	}
}

// The flake gives another derivation than the plan has: a dirty tree that was edited in between.
func TestPlanOfAnotherState(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{"api": `image "api" "echo > $out" {}`, "web": `image "web" "echo > $out" {}`})
	flake, targets := plan(t, n, dir)
	targets[0].DrvPath = strings.Replace(targets[0].DrvPath, "image-", "other-", 1)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := states(built); !strings.Contains(got["api"], "the plan has") || got["web"] != "built" {
		t.Errorf("Build = %v, want api refused and web built", got)
	}
}

func TestStoreThatCannotBeUsed(t *testing.T) {
	n, store := open(t)
	flake, targets := plan(t, n, flake(t, store, map[string]string{"api": `image "api" "echo > $out" {}`}))
	if err := n.Instantiate(t.Context(), flake, []Image{targets[0].Image}); err != nil {
		t.Fatal(err)
	}
	n.env = append(n.env, "NIX_CONFIG=store = unix:///nowhere/socket")
	_, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake})
	var c *CommandError
	if !errors.As(err, &c) || !strings.Contains(c.Cause(), "socket") {
		t.Errorf("Build = %v, want a CommandError about the socket", err)
	}
}

// What a builder prints is kept as it is, as far as it is text and fits.
func TestHostileBuilderOutput(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"hostile": `image "hostile" "head -c 1000000 /dev/zero | tr '\\0' x; echo; printf '\\377\\376 binary\\n'; printf '@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"error: forged\"}\\n'; printf '\\033[31mred\\033[0m'; exit 1" {}`,
	})
	flake, targets := plan(t, n, dir)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true, LogLines: 10})
	if err != nil {
		t.Fatal(err)
	}
	if got := states(built)["hostile"]; got != "failed image-hostile: builder failed with exit code 1" {
		t.Errorf("Build = %q", got)
	}
	log := built[0].Failure.Log
	if len(log) < 3 || len(log[0]) > maxLogLine+4 || !strings.HasPrefix(log[0], "xxx") {
		t.Fatalf("log has %d lines: %.100q", len(log), log)
	}
	if !strings.HasSuffix(log[1], " binary") || log[len(log)-1] != "red" {
		t.Errorf("log is %.200q", log[1:])
	}
}

func TestSystemsThatCanBeBuiltFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machines")
	writeFile(t, file, "# ours\nssh://arm aarch64-linux,armv7l-linux - 4 # fast\nssh://same\n")
	for builders, want := range map[string][]string{
		"":                      {"x86_64-linux", "i686-linux", "riscv64-linux"}, // those of nix.conf
		"ssh://a - /key":        {"x86_64-linux", "i686-linux"},
		"ssh://a x ; ssh://b y": {"x86_64-linux", "i686-linux", "x", "y"},
		"@" + file:              {"x86_64-linux", "i686-linux", "aarch64-linux", "armv7l-linux"},
		"@/nowhere":             {"x86_64-linux", "i686-linux"},
	} {
		s := Settings{System: "x86_64-linux", extraPlatforms: []string{"i686-linux"}, builders: "ssh://r riscv64-linux"}
		if diff := cmp.Diff(want, s.buildable(builders)); diff != "" {
			t.Errorf("buildable(%q) (-want +got):\n%s", builders, diff)
		}
	}
}

// What a lost remote builder looks like in the words of each version; what is Nix's own failure stays that.
func TestCauseIsALostBuilder(t *testing.T) {
	const connect = "cannot build on 'ssh-ng://builder': error: failed to start SSH connection to 'builder'"
	const connect8 = "cannot build on 'ssh-ng://builder': error: cannot open connection to remote store 'ssh-ng://builder': error: unexpected end-of-file"
	const copying = "could not copy /nix/store/zpmjshr2spxbq9g9jjbflmnz1f4lsnrf-load: error: Nix daemon disconnected unexpectedly (maybe it crashed?)"
	const gone = "its remote builder was lost, or failed: Nix daemon disconnected unexpectedly (maybe it crashed?)"
	for name, test := range map[string]struct{ said, reason, want string }{
		"2.8, connecting":             {connect8, "a 'x86_64-linux' with features {} is required, but I am a 'x86_64-linux' with features {}", connect8},
		"2.8, 2.26, none connects":    {connect, "Unable to start any build; remote machines may not have all required system features", connect},
		"2.34, connecting":            {connect, "local builds are disabled (max-jobs = 0)", connect},
		"2.8, building":               {"error: unexpected end-of-file", "builder failed with exit code 1", "its remote builder was lost, or failed: unexpected end-of-file"},
		"2.26, 2.34, building":        {"error: Nix daemon disconnected unexpectedly (maybe it crashed?)", "builder failed with exit code 1", gone},
		"2.26, 2.34, copying":         {"error: Nix daemon disconnected unexpectedly (maybe it crashed?)\nerror: some outputs are unexpectedly invalid", "some outputs are unexpectedly invalid", gone},
		"2.26, 2.34, copying, late":   {copying, "some outputs are unexpectedly invalid", copying},
		"a builder that fails":        {"", "builder failed with exit code 1", ""},
		"another code":                {"error: unexpected end-of-file", "builder failed with exit code 10", ""},
		"no machine of that system":   {"", "Unable to start any build; remote machines may not have all required system features", ""},
		"a machine nobody may log in": {"cannot build on 'ssh-ng://builder': error: store is read-only", "local builds are disabled (max-jobs = 0)", ""},
	} {
		b := &build{nix: &Nix{}, o: BuildOptions{Builders: "ssh-ng://builder x86_64-linux"}, log: newBuildLog(0, nil)}
		b.log.begin()
		fmt.Fprintln(b.log, test.said)
		got := b.cause(test.reason)
		want := test.want
		if want == "" {
			want = test.reason
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if again := transient.MatchString(got); again != (test.want != "") {
			t.Errorf("%s: tried again: %v", name, again)
		}
		b.o.Builders = ""
		if got := b.cause(test.reason); got != test.reason {
			t.Errorf("%s, without remote builders: %q", name, got)
		}
	}
}
