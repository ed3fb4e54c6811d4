package actions_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// checkout makes a folder that looks like flakeship at some ref: the launcher, and whatever else files say.
func checkout(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	launcher, err := os.ReadFile("launch.sh")
	if err != nil {
		t.Fatal(err)
	}
	files["actions/launch.sh"] = string(launcher)
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func launch(t *testing.T, root, path string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, "actions", "launch.sh"), "a-tool", "--flag", "two words")
	cmd.Env = append([]string{"PATH=" + path, "HOME=" + t.TempDir(), "GOCACHE=" + os.Getenv("GOCACHE"), "INPUT_NAME=from the runner"}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// withoutGo is a PATH with all that the launcher needs, and no Go.
func withoutGo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sh", "uname"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLauncherStartsThePrebuiltBinary(t *testing.T) {
	root := checkout(t, map[string]string{
		"dist/" + runtime.GOOS + "-" + runtime.GOARCH + "/a-tool": "#!/bin/sh\necho \"prebuilt, $INPUT_NAME, $2\"\nexit 5\n",
	})
	out, err := launch(t, root, withoutGo(t))
	exit, ok := err.(*exec.ExitError)
	if out != "prebuilt, from the runner, two words\n" || !ok || exit.ExitCode() != 5 {
		t.Errorf("printed %q, %v", out, err)
	}
}

func TestLauncherBuildsWhereThereIsGo(t *testing.T) {
	root := checkout(t, map[string]string{
		"go.mod":             "module example.org/x\n\ngo 1.26\n",
		"cmd/a-tool/main.go": "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"built, \" + os.Getenv(\"INPUT_NAME\") + \"\\n\") }\n",
	})
	gobin, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	// The job's own settings must not reach the build.
	out, err := launch(t, root, filepath.Dir(gobin)+":"+os.Getenv("PATH"), "GOOS=plan9", "GOARCH=386", "GOFLAGS=-mod=vendor", "GOCACHE="+t.TempDir())
	if err != nil || !strings.HasPrefix(out, "a-tool: this ref has no prebuilt binary") || !strings.HasSuffix(out, "\nbuilt, from the runner\n") {
		t.Errorf("printed %q, %v", out, err)
	}
}

func TestLauncherSaysWhatToDo(t *testing.T) {
	out, err := launch(t, checkout(t, map[string]string{}), withoutGo(t))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err == nil || len(lines) != 2 || !strings.HasPrefix(lines[0], "a-tool: error: ") || !strings.HasPrefix(lines[1], "a-tool: hint: ") {
		t.Errorf("printed %q, %v", out, err)
	}
}
