package pipeline_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
	"github.com/flakeship/flakeship/internal/handoff"
)

// testFailedStep ships a commit of which one image cannot be built, mends it, and lets the same runner run the workflow again.
func testFailedStep(t *testing.T, p *pipeline.Pipeline, r runner.Runner) {
	workflow(t, p, "failing", nil)
	program, away := filepath.Join(p.Repo, "services/report/main.sh"), filepath.Join(p.Repo, "main.sh")
	if err := os.Rename(program, away); err != nil {
		t.Fatal(err)
	}
	note(t, p, "services/report")
	note(t, p, "services/web/www")

	failed, err := p.Ship(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if failed.ExitCode == 0 || failed.Build == nil || failed.Push != nil || failed.Deploy != nil {
		t.Fatalf("exit code %d, log:\n%s", failed.ExitCode, failed.Result.Log)
	}
	for _, image := range failed.Build.Images {
		switch image.Name {
		case "web":
			if image.State != handoff.BuildBuilt || !image.Copied {
				t.Errorf("web could be built: it is %s, copied is %v", image.State, image.Copied)
			}
		case "report":
			if image.State != handoff.BuildFailed || image.Failure == nil {
				t.Errorf("report could not be built: it is %s", image.State)
			}
		}
	}
	if got, want := failed.Outputs["tell"]["told"], `["report"] failed, ["web"] built`; got != want {
		t.Errorf("the step after the failed one told %q, want %q; log:\n%s", got, want, failed.Result.Log)
	}

	if err := os.Rename(away, program); err != nil {
		t.Fatal(err)
	}
	if err := p.Write("services/report/note.txt", "mended "+t.Name()); err != nil {
		t.Fatal(err)
	}
	again, err := p.ShipAs(t.Context(), r, func(j *runner.Job) { j.Dir = failed.Dir })
	if err != nil {
		t.Fatal(err)
	}
	if again.ExitCode != 0 || again.Deploy == nil {
		t.Fatalf("exit code %d, log:\n%s", again.ExitCode, again.Result.Log)
	}
	if c := again.Counts(); c.Built != 1 || c.Pushed != 2 || c.Changed != 2 {
		t.Errorf("run again: %+v", c)
	}
	checkCluster(t, p, again.Push)
}
