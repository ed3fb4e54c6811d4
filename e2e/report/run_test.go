package report_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/pipeline/pipelinetest"
	"github.com/flakeship/flakeship/e2e/runner"
	"github.com/flakeship/flakeship/internal/handoff"
)

// ship runs a workflow of the monorepo and returns the one summary it left.
func ship(t *testing.T, p *pipeline.Pipeline, r runner.Runner, change func(*runner.Job)) (run *pipeline.Run, summary string) {
	t.Helper()
	run, err := p.ShipAs(t.Context(), r, func(j *runner.Job) {
		pipelinetest.Keep(t, j)
		change(j)
	})
	if err != nil {
		t.Fatal(err)
	}
	texts := pipelinetest.Kept(t, run, "summary")
	if len(texts) != 1 {
		t.Fatalf("%d summaries: %q\nlog:\n%s", len(texts), texts, run.Result.Log)
	}
	return run, texts[0]
}

func wants(t *testing.T, what, text string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(text) {
			t.Errorf("%s has no %q:\n%s", what, pattern, text)
		}
	}
}

// The root action in the real runners: one summary for the whole pipeline, the page that each step adds its part to, where it stopped
// when it did, and the workflow of the guide on a pull request from a fork.
func TestRootAction(t *testing.T) {
	p := pipelinetest.Start(t)
	text, err := os.ReadFile(filepath.Join(p.Repo, p.Workflow))
	if err != nil {
		t.Fatal(err)
	}
	reported := strings.Replace(string(text), "          manifests: deploy\n", "          manifests: deploy\n          report: report.html\n          base: HEAD~1\n", 1)
	if err := p.Write(p.Workflow, reported); err != nil {
		t.Fatal(err)
	}
	none := func(*runner.Job) {}
	if first, _ := ship(t, p, runner.Gitea, none); first.ExitCode != 0 {
		t.Fatalf("exit code %d, log:\n%s", first.ExitCode, first.Result.Log)
	}

	t.Run("one service changed", func(t *testing.T) {
		if err := p.Edit("services/web/www/index.html", "Welcome", "Hello"); err != nil {
			t.Fatal(err)
		}
		run, summary := ship(t, p, runner.Gitea, none)
		if run.ExitCode != 0 {
			t.Fatalf("exit code %d, log:\n%s", run.ExitCode, run.Result.Log)
		}
		wants(t, "the summary", summary, `^### flakeship: done$`, `^7 images, 1 built, 1 pushed, [0-9.]+ KiB sent, 1 of \d+ objects changed$`,
			`^\| image \| found \| built \| pushed \| deployed \| seconds \|\n\|---\|---\|---\|---\|---\|---\|\n\| web \| missing \| \[built, copied\]\(https?://[^)]+/actions/runs/\d+\) \| [0-9.]+ KiB, sha256:[0-9a-f]{12} \| Deployment/shop/web configured and ready \| [0-9.]+ \|$`,
			`^\| api \| pushed \|  \| sha256:[0-9a-f]{12} \| Deployment/shop/api ready \| `, "^```mermaid\ngraph LR\n  c0\\[\"services/web/www/index.html\"\\]\n  c0 --> i0\\(\\[\"web\"\\]\\)\n```$",
			`^\[The log of this run\]\(http://forge.test/example/monorepo/actions/runs/1\)$`, `^### deploy-manifests$`)
		wants(t, "the log", run.Result.Log, `\| image +found +built +pushed +deployed +seconds$`, `\| web +missing +built, copied +[0-9.]+ KiB, sha256:[0-9a-f]{12} +Deployment/shop/web configured and ready +[0-9.]+$`)

		pages, page := pipelinetest.Kept(t, run, "report"), filepath.Join(t.TempDir(), "report.html")
		if len(pages) == 0 {
			t.Fatal("there is no page")
		}
		if err := os.WriteFile(page, []byte(pages[len(pages)-1]), 0o644); err != nil {
			t.Fatal(err)
		}
		ctx := browser(t)
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate("file://"+page)); err != nil {
			t.Fatal(err)
		}
		saw, err := chromedp.Run(ctx, chromedp.Evaluate[seen](look))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(saw.Facts, "7 images") || !strings.Contains(saw.Facts, "1 pushed") || !strings.Contains(saw.Facts, "objects changed") || saw.Failures != 0 || len(saw.Wide) > 0 {
			t.Errorf("the page shows %+v", saw)
		}
	})

	t.Run("a step in the middle fails", func(t *testing.T) {
		program := filepath.Join(p.Repo, "services/report/main.sh")
		kept, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(program); err != nil {
			t.Fatal(err)
		}
		if err := p.Write("services/report/note.txt", "without its program"); err != nil {
			t.Fatal(err)
		}
		run, summary := ship(t, p, runner.Act, none)
		if run.ExitCode == 0 {
			t.Error("the run is green")
		}
		wants(t, "the summary", summary, `^### flakeship: failed$`, `^\*\*Stopped in nix-build-images\*\*, exit code 1:\n\n- report was not built: .*<br>\*Hint:\* nix log `,
			`^\| report \| missing \| \[failed: .*\]\(https?://[^)]+/actions/runs/\d+\) \|  \|  \|  \|$`, `^\| web \| pushed \|  \|  \|  \|  \|$`, `^\| failed image \| derivation \| why \|$`)
		if err := os.WriteFile(program, kept, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(p.Repo, "services/report/note.txt")); err != nil {
			t.Fatal(err)
		}
		if err := p.Write("README.md", "mended\n"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("a pull request from a fork", func(t *testing.T) { testFork(t, p) })
}

// testFork runs the guide's workflow for pull requests, with the names of this test's services, as a forge does it for a fork: the event
// says so, and there are no secrets.
func testFork(t *testing.T, p *pipeline.Pipeline) {
	guide, err := os.ReadFile("../../docs/guides/pull-requests.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(guide), "```yaml\n")
	workflow, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatal("the guide shows no workflow")
	}
	workflow = strings.NewReplacer("@v0.1.0", "@v1", "https://cache.example.org", p.Env.Cache.URL, "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", p.Nix.PublicKey,
		"registry.example.org/team", p.Registry()).Replace(workflow)
	if branch := exec.Command("git", "-C", p.Repo, "checkout", "--quiet", "-b", "from-a-fork"); branch.Run() != nil {
		t.Fatal("no branch can be made")
	}
	if err := p.Write(".gitea/workflows/check.yaml", workflow); err != nil {
		t.Fatal(err)
	}
	if err := p.Edit("services/web/www/index.html", "Hello", "Buy here"); err != nil {
		t.Fatal(err)
	}
	const payload = "../../internal/action/testdata/gitea-fork.json"
	for _, r := range runner.All {
		run, summary := ship(t, p, r, func(j *runner.Job) {
			j.Workflow, j.EventName, j.Event = ".gitea/workflows/check.yaml", "pull_request", event(t, payload)
			j.Secrets = map[string]string{}
		})
		if run.ExitCode != 0 || run.Build == nil || run.Push == nil || run.Deploy == nil {
			t.Fatalf("%s: exit code %d, log:\n%s", r, run.ExitCode, run.Result.Log)
		}
		if n := strings.Count(run.Result.Log, "notice: this pull request comes from stranger/shop"); n != 1 {
			t.Errorf("%s: %d notices in the log:\n%s", r, n, run.Result.Log)
		}
		wants(t, string(r)+": the log", run.Result.Log, `left out: asking .*/shop what it has: `, `left out: the push to .*: no registry credentials are given, in a pull request from stranger/shop$`,
			`left out: the deploy: no kubeconfig is given, in a pull request from stranger/shop; the manifests were read`)
		wants(t, string(r)+": the summary", summary, `^### flakeship: done$`, `^Push left out: no registry credentials are given`, `^Deploy left out: no kubeconfig is given`,
			`^\| web \| missing \| \[built\]\(https?://[^)]+/actions/runs/\d+\) \| left out \|  \| `, "^```mermaid\ngraph LR\n  c0\\[\"services/web/www/index.html\"\\]$")
		if run.Traffic.BytesIn != 0 || run.Push.Complete {
			t.Errorf("%s: the registry got something: %+v", r, run.Traffic)
		}
		for _, o := range run.Deploy.Objects {
			if o.Action != handoff.ActionSkipped {
				t.Errorf("%s: %s was %s", r, o.ID(), o.Action)
			}
		}
	}
}

// event reads the payload of an event.
func event(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}
