package pipeline_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/pipeline/pipelinetest"
	"github.com/flakeship/flakeship/e2e/runner"
	"github.com/flakeship/flakeship/internal/handoff"
)

// The monorepo's seven images; every family is among them.
var images = []string{"agent", "api", "migrate", "queue", "report", "web", "worker"}

func shipOnce(t *testing.T, p *pipeline.Pipeline, r runner.Runner) *pipeline.Run {
	t.Helper()
	run, err := p.Ship(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if run.ExitCode != 0 || run.Plan == nil || run.Build == nil || run.Push == nil || run.Deploy == nil {
		t.Fatalf("exit code %d, log:\n%s", run.ExitCode, run.Result.Log)
	}
	t.Logf("%s: %+v", r, run.Counts())
	return run
}

func TestThreeRuns(t *testing.T) {
	for _, r := range runner.All {
		t.Run(string(r), func(t *testing.T) {
			p := pipelinetest.Start(t)

			first := shipOnce(t, p, r)
			if diff := cmp.Diff(images, names(first.Push)); diff != "" {
				t.Errorf("images pushed at first (-want +got):\n%s", diff)
			}
			if c := first.Counts(); c.Built != len(images) || c.Pushed != len(images) || c.Changed != c.Objects || c.Objects < 16 {
				t.Errorf("first run: %+v", c)
			}
			checkChain(t, first)
			checkSecrets(t, p, first)
			before := checkCluster(t, p, first.Push)

			// A commit that touches no service, on a runner that has never seen the repository.
			if err := p.Edit("README.md", "# The shop", "# The little shop"); err != nil {
				t.Fatal(err)
			}
			if err := p.FreshRunner(t.Context()); err != nil {
				t.Fatal(err)
			}
			second := shipOnce(t, p, r)
			if c := second.Counts(); c.Built != 0 || c.Pushed != 0 || c.Changed != 0 || c.Bytes != 0 {
				t.Errorf("second run: %+v", c)
			}
			for _, image := range second.Plan.Images {
				if image.State != handoff.StatePushed {
					t.Errorf("second run: %s is %s: %s", image.Name, image.State, image.Reason)
				}
			}
			if diff := cmp.Diff(before, checkCluster(t, p, second.Push)); diff != "" {
				t.Errorf("second run changed workloads:\n%s", diff)
			}

			if err := p.Edit("services/web/www/index.html", "Welcome", "Hello"); err != nil {
				t.Fatal(err)
			}
			third := shipOnce(t, p, r)
			if c := third.Counts(); c.Built != 1 || c.Pushed != 1 || c.Changed != 1 {
				t.Errorf("third run: %+v", c)
			}
			for _, image := range third.Push.Images {
				if image.Name == "web" && (image.Layers.Reused == 0 || image.Layers.Uploaded == 0) {
					t.Errorf("third run: layers of web: %+v", image.Layers)
				}
			}
			for _, object := range third.Deploy.Objects {
				if changed := object.Action != handoff.ActionUnchanged; changed != (object.ID() == "Deployment/shop/web") {
					t.Errorf("third run: %s is %s", object.ID(), object.Action)
				}
			}
			after := checkCluster(t, p, third.Push)
			delete(before, "web")
			delete(after, "web")
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("third run changed other workloads:\n%s", diff)
			}

			t.Run("one by one", func(t *testing.T) { testOneByOne(t, p, r) })
			t.Run("as written", func(t *testing.T) { testAsWritten(t, p, r) })
			t.Run("shards", func(t *testing.T) { testShards(t, p, r) })
			if r == runner.Gitea {
				t.Run("from a git server", func(t *testing.T) { testFromGitServer(t, p) })
				t.Run("pull", func(t *testing.T) { testPull(t, p, third.Push) })
				t.Run("killed push", func(t *testing.T) { testKilledPush(t, p, first) })
				t.Run("killed deploy", func(t *testing.T) { testKilledDeploy(t, p, third) })
			}
		})
	}
}

// testShards builds and pushes in two jobs, each its part of the plan, and deploys what both have pushed.
func testShards(t *testing.T, p *pipeline.Pipeline, r runner.Runner) {
	text, err := os.ReadFile("testdata/shards.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ship := p.Workflow
	p.Workflow = ".gitea/workflows/shards.yaml"
	defer func() { p.Workflow = ship }()
	if err := p.Write(p.Workflow, string(text)); err != nil {
		t.Fatal(err)
	}
	for _, edit := range [][3]string{{"services/web/www/index.html", "</h1>", "!</h1>"}, {"services/migrate/migrations/0001-products.sql", "CREATE TABLE", "Create table"}} {
		if err := p.Edit(edit[0], edit[1], edit[2]); err != nil {
			t.Fatal(err)
		}
	}
	run := shipOnce(t, p, r)
	joined := new(handoff.PushResult)
	if err := handoff.Load(run.Outputs["join"]["push-result-json"], joined); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, image := range joined.Images {
		all = append(all, image.Name)
	}
	if diff := cmp.Diff(images, all); diff != "" || !joined.Complete {
		t.Errorf("images of the joined result, complete is %v (-want +got):\n%s", joined.Complete, diff)
	}
	checkCluster(t, p, joined)
	parts := map[int]int{}
	for _, image := range run.Plan.Images {
		if image.Build {
			parts[max(image.Shard, 1)]++
		}
	}
	if diff := cmp.Diff(map[int]int{1: 1, 2: 1}, parts); diff != "" {
		t.Errorf("images to build in each part: %s", diff)
	}
}

// testOneByOne ships a change with the four actions named one by one, over two
// jobs.
func testOneByOne(t *testing.T, p *pipeline.Pipeline, r runner.Runner) {
	text, err := os.ReadFile("testdata/steps.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ship := p.Workflow
	p.Workflow = ".gitea/workflows/steps.yaml"
	defer func() { p.Workflow = ship }()
	if err := p.Write(p.Workflow, string(text)); err != nil {
		t.Fatal(err)
	}
	if err := p.Edit("services/migrate/migrations/0001-products.sql", "create table", "CREATE TABLE"); err != nil {
		t.Fatal(err)
	}
	run := shipOnce(t, p, r)
	if c := run.Counts(); c.Built != 1 || c.Pushed != 1 || c.Changed != 1 {
		t.Errorf("counts: %+v", c)
	}
	checkChain(t, run)
	checkSecrets(t, p, run)
	checkCluster(t, p, run.Push)
	for _, image := range run.Push.Images {
		if !slices.Contains(image.Tags, "main") || !slices.Contains(image.Tags, run.Push.Commit[:7]) {
			t.Errorf("%s has tags %q", image.Name, image.Tags)
		}
	}
}

func names(push *handoff.PushResult) []string {
	var all []string
	for _, image := range push.Images {
		if image.State == handoff.PushUploaded {
			all = append(all, image.Name)
		}
	}
	return all
}

// checkChain checks that each document names the one it was made from.
func checkChain(t *testing.T, run *pipeline.Run) {
	t.Helper()
	chain := []handoff.Header{run.Plan.Header, run.Build.Header, run.Push.Header, run.Deploy.Header}
	for i, head := range chain[1:] {
		if !slices.Equal(head.Previous, []string{chain[i].Digest}) || head.Commit != chain[0].Commit || len(head.Commit) != 40 {
			t.Errorf("%s of commit %q was made from %q, not from the %s %s", head.Kind, head.Commit, head.Previous, chain[i].Kind, chain[i].Digest)
		}
	}
}

// checkSecrets checks that the log shows no secret, not even a line of one.
func checkSecrets(t *testing.T, p *pipeline.Pipeline, run *pipeline.Run) {
	t.Helper()
	for _, secret := range secrets(t, p) {
		if strings.Contains(run.Result.Log, secret) {
			t.Errorf("the log holds the secret %.12s…", secret)
		}
	}
}

// secrets are what a run is given and nobody else may see.
func secrets(t *testing.T, p *pipeline.Pipeline) []string {
	t.Helper()
	key, err := os.ReadFile(p.Nix.SecretKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(p.Env.Cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	found := []string{strings.TrimSpace(string(key)), "a-password-of-the-registry"}
	for line := range strings.Lines(string(kubeconfig)) {
		if _, value, ok := strings.Cut(line, "client-key-data:"); ok {
			found = append(found, strings.TrimSpace(value))
		}
	}
	if len(found) < 3 {
		t.Error("the kubeconfig holds no key: the test looks for the wrong thing")
	}
	return found
}

// checkCluster checks that every workload runs the digest that was pushed, and
// returns the generation of each.
func checkCluster(t *testing.T, p *pipeline.Pipeline, push *handoff.PushResult) map[string]int64 {
	t.Helper()
	client, err := p.Env.Cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, image := range push.Images {
		want[image.Name] = image.Reference()
	}
	generations := map[string]int64{}
	check := func(name string, generation int64, image string) {
		generations[name] = generation
		if image != want[name] {
			t.Errorf("%s runs %s, pushed was %s", name, image, want[name])
		}
	}
	ctx, all := context.WithoutCancel(t.Context()), metav1.ListOptions{}
	deployments, err := client.AppsV1().Deployments("shop").List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deployments.Items {
		check(d.Name, d.Generation, d.Spec.Template.Spec.Containers[0].Image)
		if d.Status.ReadyReplicas != *d.Spec.Replicas || d.Status.ObservedGeneration != d.Generation {
			t.Errorf("Deployment %s is not ready: %+v", d.Name, d.Status)
		}
	}
	sets, err := client.AppsV1().StatefulSets("shop").List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sets.Items {
		check(s.Name, s.Generation, s.Spec.Template.Spec.Containers[0].Image)
	}
	crons, err := client.BatchV1().CronJobs("shop").List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range crons.Items {
		check(c.Name, c.Generation, c.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image)
	}
	jobs, err := client.BatchV1().Jobs("shop").List(ctx, metav1.ListOptions{LabelSelector: "!batch.kubernetes.io/cronjob-scheduled-timestamp"})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs.Items {
		check(j.Name, j.Generation, j.Spec.Template.Spec.Containers[0].Image)
		if j.Status.Succeeded != 1 {
			t.Errorf("Job %s has not succeeded: %+v", j.Name, j.Status)
		}
	}
	if len(generations) < 6 {
		t.Errorf("workloads found: %v", generations)
	}
	return generations
}
