package pipeline_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
)

// testAsWritten ships with the workflows that README and quick start tell people to paste: the addresses in them are replaced
// by those of this machine, and nothing else.
func testAsWritten(t *testing.T, p *pipeline.Pipeline, r runner.Runner) {
	own, err := os.ReadFile(p.Repo + "/" + p.Workflow)
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer(
		"flakeship/flakeship@v0.1.0", "flakeship/flakeship@v1",
		"https://cache.example.org", p.Env.Cache.URL,
		"registry.example.org/team", p.Registry(),
		"gitea.example.org/team", p.Registry(),
	)
	for _, page := range []string{"../../README.md", "../../docs/quick-start.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile("(?s)```yaml\n(name: ship\n.*?)```").FindSubmatch(text)
		if found == nil {
			t.Fatalf("%s has no workflow to paste", page)
		}
		if lines := strings.Count(string(found[1]), "\n"); lines > 20 {
			t.Errorf("the workflow of %s has %d lines", page, lines)
		}
		if err := p.Write(p.Workflow, here.Replace(string(found[1]))); err != nil {
			t.Fatal(err)
		}
		if err := p.Edit("services/web/www/index.html", "</p>", " </p>"); err != nil {
			t.Fatal(err)
		}
		run := shipOnce(t, p, r)
		if c := run.Counts(); c.Built != 1 || c.Pushed != 1 || c.Changed != 1 {
			t.Errorf("%s: %+v", page, c)
		}
		checkCluster(t, p, run.Push)
		checkSecrets(t, p, run)
	}
	if err := p.Write(p.Workflow, string(own)); err != nil {
		t.Fatal(err)
	}
}
