package runner_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flakeship/flakeship/e2e/runner"
)

const workflow = `
on: push
jobs:
  ship:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: root
        uses: acme/tool@v1
        with: {who: root}
      - id: sub
        uses: acme/tool/actions/sub@v1
        with: {who: sub}
      - id: plain
        shell: bash
        env: {TOKEN: '${{ secrets.TOKEN }}'}
        run: |
          echo "the token is $TOKEN."
          echo "sha=${{ github.sha }} repository=$GITHUB_REPOSITORY ref=$GITHUB_REF" >> "$GITHUB_OUTPUT"
          echo "home=$HOME given=$GIVEN leaked=${LEAKED-no}" >> "$GITHUB_OUTPUT"
          echo "file=$(cat README) status=$(git status --porcelain | wc -l)" >> "$GITHUB_OUTPUT"
          echo "var=${{ vars.COLOUR }} after=${{ github.event.after }}" >> "$GITHUB_OUTPUT"
`

const action = `
name: tool
description: says hello
inputs: {who: {description: whom to greet}}
outputs: {greeting: {description: what was said, value: '${{ steps.say.outputs.greeting }}'}}
runs:
  using: composite
  steps:
    - id: say
      shell: bash
      env: {INPUT_WHO: '${{ inputs.who }}'}
      run: '"$GITHUB_ACTION_PATH/DIST/say.sh"'
`

const script = `#!/bin/sh
echo "greeting=hello $INPUT_WHO" >> "$GITHUB_OUTPUT"
`

func TestRun(t *testing.T) {
	t.Setenv("LEAKED", "yes")
	actionFolder := t.TempDir()
	write(t, actionFolder, "action.yml", strings.Replace(action, "DIST", "dist", 1))
	write(t, actionFolder, "actions/sub/action.yml", strings.Replace(action, "DIST", "../../dist", 1))
	write(t, actionFolder, "dist/say.sh", script)
	source := repository(t, workflow)

	for _, kind := range runner.All {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			result, err := runner.Run(t.Context(), runner.Job{
				Runner: kind, Dir: dir, Source: source, Workflow: ".gitea/workflows/ship.yaml",
				Env: map[string]string{"GIVEN": "this"}, Vars: map[string]string{"COLOUR": "red"},
				Secrets: map[string]string{"TOKEN": "s3cr3t-value"},
				Actions: map[string]string{"acme/tool@v1": actionFolder},
			})
			if err != nil {
				t.Fatal(err)
			}
			if result.ExitCode != 0 {
				t.Fatalf("exit code %d; log:\n%s", result.ExitCode, result.Log)
			}
			if strings.Contains(result.Log, "s3cr3t-value") || !strings.Contains(result.Log, "the token is ***.") {
				t.Errorf("the secret is not masked; log:\n%s", result.Log)
			}
			head := git(t, source, "rev-parse", "HEAD")
			for _, want := range []struct{ step, name, value string }{
				{"root", "greeting", "hello root"},
				{"sub", "greeting", "hello sub"},
				{"plain", "sha", head + " repository=example/monorepo ref=refs/heads/main"},
				{"plain", "home", filepath.Join(dir, "home") + " given=this leaked=no"},
				{"plain", "file", "hello status=0"},
				{"plain", "var", "red after=" + head},
			} {
				if got := result.Outputs[want.step][want.name]; got != want.value {
					t.Errorf("output %s.%s = %q, want %q; log:\n%s", want.step, want.name, got, want.value, result.Log)
				}
			}
		})
	}
}

func TestCopyAction(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	write(t, root, "action.yml", action)
	write(t, root, "actions/launch.sh", script)
	write(t, root, "internal/code.go", "package code")
	write(t, dir, "actions/old/action.yml", "of an earlier copy")
	write(t, dir, "dist/tool", "the caller's")
	if err := runner.CopyAction(root, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"action.yml": true, "actions/launch.sh": true, "dist/tool": true, "actions/old/action.yml": false, "internal/code.go": false,
	} {
		if got := exists(filepath.Join(dir, name)); got != want {
			t.Errorf("%s is there: %t, want %t", name, got, want)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "actions/launch.sh")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the launcher cannot be run: %v, %v", info, err)
	}
	if err := runner.CopyAction(t.TempDir(), dir); err == nil {
		t.Error("copying a folder without an action succeeds")
	}
}

func TestFailedStep(t *testing.T) {
	source := repository(t, `
on: push
jobs:
  ship:
    runs-on: ubuntu-latest
    steps:
      - run: echo before; exit 7
        shell: bash
      - run: echo after
        shell: bash
`)
	for _, kind := range runner.All {
		t.Run(string(kind), func(t *testing.T) {
			result, err := runner.Run(t.Context(), runner.Job{
				Runner: kind, Dir: t.TempDir(), Source: source, Workflow: ".gitea/workflows/ship.yaml",
			})
			if err != nil {
				t.Fatal(err)
			}
			if result.ExitCode == 0 || !strings.Contains(result.Log, "| before") || strings.Contains(result.Log, "| after") {
				t.Errorf("exit code %d; log:\n%s", result.ExitCode, result.Log)
			}
		})
	}
}

// What is known of the runners' limit for a line of output; the other runners here have none that matters.
func TestLongLines(t *testing.T) {
	source := repository(t, `
on: push
jobs:
  ship:
    runs-on: ubuntu-latest
    steps:
      - id: long
        shell: bash
        run: |
          echo "short=$(printf %60000d 1)" >> "$GITHUB_OUTPUT"
          echo "long=$(printf %70000d 1)" >> "$GITHUB_OUTPUT"
          echo "after=yes" >> "$GITHUB_OUTPUT"
`)
	for kind, loses := range map[runner.Runner]bool{runner.GiteaAct: true, runner.Gitea: false, runner.Act: false} {
		t.Run(string(kind), func(t *testing.T) {
			result, err := runner.Run(t.Context(), runner.Job{
				Runner: kind, Dir: t.TempDir(), Source: source, Workflow: ".gitea/workflows/ship.yaml",
			})
			if err != nil {
				t.Fatal(err)
			}
			long := result.Outputs["long"]
			if len(long["short"]) != 60000 || (long["after"] != "yes") != loses {
				t.Errorf("short has %d bytes, long %d, after is %q", len(long["short"]), len(long["long"]), long["after"])
			}
		})
	}
}

func TestUnknownActionIsNotFetched(t *testing.T) {
	source := repository(t, `
on: push
jobs:
  ship:
    runs-on: ubuntu-latest
    steps:
      - uses: acme/absent@v1
`)
	result, err := runner.Run(t.Context(), runner.Job{
		Runner: runner.Gitea, Dir: t.TempDir(), Source: source, Workflow: ".gitea/workflows/ship.yaml",
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitCode == 0 || !strings.Contains(result.Log, "acme/absent@v1 is not among the local ones") {
		t.Errorf("exit code %d; log:\n%s", result.ExitCode, result.Log)
	}
}

// A step's background process that left its group and session ends with the run.
func TestNothingIsLeftRunning(t *testing.T) {
	source := repository(t, `
on: push
jobs:
  ship:
    runs-on: ubuntu-latest
    steps:
      - shell: bash
        run: |
          setsid bash -c 'echo $$ > "$PID_FILE"; trap "" TERM HUP; while :; do sleep 1; done' > /dev/null 2>&1 < /dev/null &
          while [ ! -s "$PID_FILE" ]; do sleep 0.05; done
          [ "$GO_ON" ] || sleep 1000
`)
	for _, kind := range runner.All {
		for _, goOn := range []string{"", "yes"} {
			t.Run(string(kind)+"/finished="+goOn, func(t *testing.T) {
				dir := t.TempDir()
				pidFile := filepath.Join(dir, "pid")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if goOn == "" {
					go func() {
						for !exists(pidFile) {
							time.Sleep(20 * time.Millisecond)
						}
						cancel()
					}()
				}
				_, err := runner.Run(ctx, runner.Job{
					Runner: kind, Dir: dir, Source: source, Workflow: ".gitea/workflows/ship.yaml",
					Env: map[string]string{"PID_FILE": pidFile, "GO_ON": goOn},
				})
				if (err != nil) != (goOn == "") {
					t.Errorf("error %v, want one: %t", err, goOn == "")
				}
				text, err := os.ReadFile(pidFile)
				if err != nil {
					t.Fatal(err)
				}
				pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
				if err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(pid, 0); err == nil {
					t.Errorf("process %d of the step still runs", pid)
				}
			})
		}
	}
}

// The same when the process that started the run is killed and cannot tidy up.
func TestNothingIsLeftRunningByAKilledParent(t *testing.T) {
	source := repository(t, `
on: push
jobs:
  ship:
    runs-on: ubuntu-latest
    steps:
      - shell: bash
        run: |
          setsid sleep 1000 > /dev/null 2>&1 < /dev/null &
          echo $! > "$PID_FILE"
          sleep 1000
`)
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "FLAKESHIP_RUN_SOURCE="+source, "FLAKESHIP_RUN_DIR="+dir, "PID_FILE="+pidFile)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !exists(pidFile); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the step did not start")
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d of the step still runs", pid)
		}
	}
}

func TestMain(m *testing.M) {
	if source := os.Getenv("FLAKESHIP_RUN_SOURCE"); source != "" {
		_, err := runner.Run(context.Background(), runner.Job{
			Runner: runner.Gitea, Dir: os.Getenv("FLAKESHIP_RUN_DIR"), Source: source, Workflow: ".gitea/workflows/ship.yaml",
			Env: map[string]string{"PID_FILE": os.Getenv("PID_FILE")},
		})
		fmt.Fprintln(os.Stderr, err) // it ended, which it should not
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

func repository(t *testing.T, workflow string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "README", "hello\n")
	write(t, dir, ".gitea/workflows/ship.yaml", workflow)
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "--message=first")
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
