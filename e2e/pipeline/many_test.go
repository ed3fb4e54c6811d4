package pipeline_test

import (
	"os"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/pipeline/pipelinetest"
	"github.com/flakeship/flakeship/e2e/runner"
	"github.com/flakeship/flakeship/internal/handoff"
)

// testMany hands two hundred images from job to job by value, on a runner that loses a line of more than 64 KiB as well.
func testMany(t *testing.T, p *pipeline.Pipeline) {
	const many = 200
	flake, err := os.ReadFile("testdata/many.nix")
	if err != nil {
		t.Fatal(err)
	}
	monorepo := p.Repo
	defer func() { p.Repo = monorepo }()
	if err := p.Another(t.Context(), "many", map[string]string{"flake.nix": string(flake), ".gitea/workflows/many.yaml": "on: push\n"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []runner.Runner{runner.GiteaAct, runner.Gitea, runner.Act} {
		t.Run(string(r), func(t *testing.T) {
			workflow(t, p, "many", nil)
			run, err := p.ShipAs(t.Context(), r, func(j *runner.Job) { pipelinetest.Keep(t, j) })
			if err != nil {
				t.Fatal(err)
			}
			if run.ExitCode != 0 || run.Plan == nil {
				t.Fatalf("exit code %d, log:\n%.20000s", run.ExitCode, run.Result.Log)
			}
			joined := new(handoff.PushResult)
			if err := handoff.Load(run.Outputs["join"]["push-result-json"], joined); err != nil {
				t.Fatal(err)
			}
			if len(run.Plan.Images) != many || len(joined.Images) != many || !joined.Complete {
				t.Errorf("%d images planned, %d joined, complete %v", len(run.Plan.Images), len(joined.Images), joined.Complete)
			}
			if text, err := handoff.Seal(run.Plan); err != nil || len(text) <= 64<<10 {
				t.Errorf("the plan has %d bytes: this proves nothing; %v", len(text), err)
			}
			outputs := pipelinetest.Kept(t, run, "output")
			if len(outputs) != 4 {
				t.Errorf("%d steps had outputs", len(outputs))
			}
			for _, output := range outputs {
				for line := range strings.Lines(output) {
					if len(line) > 60_000 {
						t.Errorf("a line of %d bytes: %.40s…", len(line), line)
					}
				}
			}
		})
	}
}
