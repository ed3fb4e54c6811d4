package pipelinetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
)

// keepScript is the shell of every step: the real one, and a copy of what the step has told others, before the runner masks it,
// takes it in and throws it away. Names of the copies are in the order of time.
const keepScript = `#!/bin/sh
%[1]q "$@"
code=$?
for kept in "output $GITHUB_OUTPUT" "summary $GITHUB_STEP_SUMMARY" "report report.html"; do
	file=${kept#* }
	if [ -s "$file" ]; then cp "$file" %[2]q/$(date +%%s%%N).$$.${kept%%%% *}; fi
done
exit $code
`

// Keep has everything kept that the job's steps tell others, for Kept.
func Keep(t *testing.T, j *runner.Job) {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	bin, folder := filepath.Join(j.Dir, "bin"), filepath.Join(j.Dir, "kept")
	for _, dir := range []string{bin, folder} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "bash"), fmt.Appendf(nil, keepScript, bash, folder), 0o755); err != nil {
		t.Fatal(err)
	}
	j.Env["PATH"] = bin + ":" + os.Getenv("PATH")
}

// Kept are the texts of one kind that steps of a job with Keep have told, in the order of time: output, summary or report.
func Kept(t *testing.T, run *pipeline.Run, kind string) (texts []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(run.Dir, "kept", "*."+kind))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}
