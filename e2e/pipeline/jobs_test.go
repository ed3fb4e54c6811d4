package pipeline_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/pipeline/pipelinetest"
	"github.com/flakeship/flakeship/e2e/runner"
	"github.com/flakeship/flakeship/internal/handoff"
)

// TestJobs is about what lies between the steps: documents that go from job to job, jobs that have nothing to do, failed steps
// and cancelled ones.
func TestJobs(t *testing.T) {
	p := pipelinetest.Start(t)
	shipOnce(t, p, runner.Gitea)
	for _, r := range runner.All {
		t.Run(string(r), func(t *testing.T) {
			t.Run("across jobs", func(t *testing.T) { testAcrossJobs(t, p, r) })
			t.Run("failed step", func(t *testing.T) { testFailedStep(t, p, r) })
			t.Run("cancelled", func(t *testing.T) { testCancelled(t, p, r) })
		})
	}
	t.Run("two hundred images", func(t *testing.T) { testMany(t, p) })
}

// testAcrossJobs ships by a static matrix whose parts are joined, with all documents as artifacts, and again when there is no work.
func testAcrossJobs(t *testing.T, p *pipeline.Pipeline, r runner.Runner) {
	note(t, p, "services/web/www")
	note(t, p, "services/migrate/migrations")

	// An output makes the matrix, before and after the work is done: an empty one stops nothing.
	dynamic := workflow(t, p, "dynamic", nil)
	if got := dynamicJobs(t, p, r); !slices.Equal(got, []string{"migrate", "web"}) {
		t.Errorf("jobs of a matrix of two images: %q", got)
	}
	defer func() {
		p.Workflow = dynamic
		if got := dynamicJobs(t, p, r); len(got) > 0 {
			t.Errorf("jobs without work: %q", got)
		}
	}()

	workflow(t, p, "matrix", withReport)
	first := shipMatrix(t, p, r)
	var plan handoff.Plan
	load(t, first, "plan", &plan)
	var parts [2]handoff.PushResult
	load(t, first, "push-result-1", &parts[0])
	load(t, first, "push-result-2", &parts[1])
	var pushed handoff.PushResult
	if err := handoff.Load(first.Outputs["push"]["push-result-json"], &pushed); err != nil {
		t.Fatal(err)
	}
	if want := []string{parts[0].Digest, parts[1].Digest}; !slices.Equal(pushed.Previous, want) || !pushed.Complete || len(pushed.Images) != len(images) {
		t.Errorf("joined: made of %q, want %q; complete %v; %d images", pushed.Previous, want, pushed.Complete, len(pushed.Images))
	}
	if diff := cmp.Diff([]string{"migrate", "web"}, slices.Sorted(slices.Values(append(names(&parts[0]), names(&parts[1])...)))); diff != "" || plan.Shards != 2 {
		t.Errorf("uploaded by the parts (-want +got):\n%s", diff)
	}
	if c := first.Counts(); c.Changed != 2 {
		t.Errorf("first run: %+v", c)
	}
	checkCluster(t, p, &pushed)
	checkSaid(t, p, first)

	if err := p.Edit("deploy/web.yaml", "replicas: 2", "replicas: 3"); err != nil {
		t.Fatal(err)
	}
	second := shipMatrix(t, p, r)
	if c := second.Counts(); c.Changed != 1 || second.Traffic.Blobs > 0 {
		t.Errorf("second run: %+v, %d blobs", c, second.Traffic.Blobs)
	}
	if _, err := os.Stat(filepath.Join(artifacts(second), "push-result-1")); err == nil {
		t.Error("second run: the jobs that build were not skipped")
	}
	if err := p.Edit("deploy/web.yaml", "replicas: 3", "replicas: 2"); err != nil {
		t.Fatal(err)
	}
}

// note makes the source below dir another one.
func note(t *testing.T, p *pipeline.Pipeline, dir string) {
	t.Helper()
	if err := p.Write(filepath.Join(dir, "note.txt"), t.Name()); err != nil {
		t.Fatal(err)
	}
}

// workflow makes testdata/name.yaml, changed when change is given, the workflow that is run until the test is over. It returns
// the workflow's path.
func workflow(t *testing.T, p *pipeline.Pipeline, name string, change func(string) string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		change = func(text string) string { return text }
	}
	ship := p.Workflow
	p.Workflow = ".gitea/workflows/" + name + ".yaml"
	t.Cleanup(func() { p.Workflow = ship })
	if err := p.Write(p.Workflow, change(string(text))+"# for "+t.Name()+"\n"); err != nil {
		t.Fatal(err)
	}
	return p.Workflow
}

// dynamicJobs runs the workflow dynamic and returns the images that had a job.
func dynamicJobs(t *testing.T, p *pipeline.Pipeline, r runner.Runner) (jobs []string) {
	t.Helper()
	run, err := p.Ship(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if run.ExitCode != 0 {
		t.Fatalf("exit code %d, log:\n%s", run.ExitCode, run.Result.Log)
	}
	for line := range strings.Lines(run.Result.Log) {
		if _, name, ok := strings.Cut(line, "| the job of "); ok {
			jobs = append(jobs, strings.TrimSpace(name))
		}
	}
	if told := run.Outputs["tell"]["told"]; (told != "") != (len(jobs) > 0) {
		t.Errorf("%d jobs, and the step that is there for work said %q", len(jobs), told)
	}
	slices.Sort(jobs)
	return jobs
}

func shipMatrix(t *testing.T, p *pipeline.Pipeline, r runner.Runner) *pipeline.Run {
	t.Helper()
	run, err := p.ShipAs(t.Context(), r, func(j *runner.Job) {
		j.Artifacts = true
		pipelinetest.Keep(t, j)
	})
	if err != nil {
		t.Fatal(err)
	}
	if run.ExitCode != 0 || run.Deploy == nil {
		t.Fatalf("exit code %d, log:\n%s", run.ExitCode, run.Result.Log)
	}
	return run
}

// artifacts is the folder with an artifact in each folder.
func artifacts(run *pipeline.Run) string { return filepath.Join(run.Dir, "artifacts", "1") }

func load(t *testing.T, run *pipeline.Run, artifact string, d handoff.Document) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(artifacts(run), artifact, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("artifact %s: %q, %v; log:\n%s", artifact, files, err, run.Result.Log)
	}
	if err := handoff.Load(files[0], d); err != nil {
		t.Fatal(err)
	}
}

// withReport has each of our steps add to a report.
func withReport(text string) string {
	for _, input := range []string{"shards: ", "plan: ", "build-result: ", "push-result: ${{ steps"} {
		text = strings.ReplaceAll(text, "          "+input, "          report: report.html\n          "+input)
	}
	return text
}

// checkSaid looks for secrets in everything that a run of matrix has told others.
func checkSaid(t *testing.T, p *pipeline.Pipeline, run *pipeline.Run) {
	t.Helper()
	for _, want := range []struct {
		file, says string
		least      int
	}{{"output", "push-result-json", 7}, {"summary", "| image |", 7}, {"report", "<title>", 7}} {
		files, found := pipelinetest.Kept(t, run, want.file), false
		for _, text := range files {
			found = found || strings.Contains(text, want.says)
		}
		if len(files) < want.least || !found {
			t.Errorf("%d steps had a %s, one with %q: %v; the test looks in the wrong place", len(files), want.file, want.says, found)
		}
	}
	checkSecrets(t, p, run)
	checkFiles(t, run.Dir, secrets(t, p))
}
