package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

const hostile = `</script><script>alert(1)</script>"'><img src=x onerror=alert(1)>`

// The four steps of one run, as they add to one file.
func documents(commit string) []handoff.Document {
	h := func(kind handoff.Kind) handoff.Header {
		return handoff.Header{Kind: kind, Version: handoff.Version, Commit: commit, Digest: "sha256:0"}
	}
	return []handoff.Document{
		&handoff.Plan{Header: h(handoff.KindPlan), Images: []handoff.PlannedImage{
			{Name: "api", System: "x86_64-linux", State: handoff.StateMissing, Reason: "no cache has it", Build: true, Push: true},
			{Name: "web", System: "x86_64-linux", State: handoff.StatePushed, Reason: "the registry has it"},
			{Name: "bad", System: "x86_64-linux", State: handoff.StateMissing, Reason: hostile, Build: true, Push: true},
		}, Changes: &handoff.Changes{Base: strings.Repeat("c", 40), Added: []handoff.ImageName{{Name: hostile}}, Changed: []handoff.ChangedImage{
			{ImageName: handoff.ImageName{Name: "api"}, Causes: []handoff.Cause{{Kind: handoff.CauseVersion, What: "go", From: "1.21.3", To: "1.21.4", Via: []string{hostile}}}}}}},
		&handoff.BuildResult{Header: h(handoff.KindBuildResult), Images: []handoff.BuiltImage{
			{Name: "api", System: "x86_64-linux", State: handoff.BuildBuilt, Copied: true, Seconds: 12.25},
			{Name: "bad", System: "x86_64-linux", State: handoff.BuildFailed, Failure: &handoff.Failure{Derivation: "/nix/store/x.drv", Reason: "exit code 1", Log: []string{hostile, "second line"}}},
			{Name: "web", System: "x86_64-linux", State: handoff.BuildSkipped},
		}},
		&handoff.PushResult{Header: h(handoff.KindPushResult), Images: []handoff.PushedImage{
			{Name: "api", Repository: "gitea.example.org/team/api", Tag: "abc", Digest: "sha256:1234", Systems: []string{"x86_64-linux"}, State: handoff.PushUploaded, Layers: handoff.Layers{Reused: 3, Uploaded: 1}, Uploaded: 2048, Seconds: 0.25},
			{Name: "web", Repository: "gitea.example.org/team/web", Tag: "def", Digest: "sha256:5678", Systems: []string{"x86_64-linux"}, State: handoff.PushUnchanged},
		}},
		&handoff.DeployResult{Header: h(handoff.KindDeployResult), Changed: true, Objects: []handoff.DeployedObject{
			{Kind: "Deployment", Namespace: "shop", Name: "api", Action: handoff.ActionConfigured, Rollout: handoff.RolloutReady, Seconds: 1.5, Message: "2 pods", Images: []string{"api"}},
			{Kind: "Service", Namespace: "shop", Name: "api", Action: handoff.ActionUnchanged, Rollout: handoff.RolloutNone},
			{Kind: "CronJob", Namespace: "shop", Name: hostile, Action: handoff.ActionUnchanged, Rollout: handoff.RolloutNone, Images: []string{"web"}},
		}},
	}
}

func read1(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStepsAddToOneReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "report.html")
	run := Run{Repository: "team/shop", Server: "https://gitea.example.org", ID: "17", Ref: "main"}
	facts := []string{
		"<li>3 images</li>",
		"<li>3 images</li><li>1 built</li>",
		"<li>3 images</li><li>1 built</li><li>1 pushed</li><li>2.0 KiB sent</li>",
		"<li>3 images</li><li>1 built</li><li>1 pushed</li><li>2.0 KiB sent</li><li>1 of 3 objects changed</li>",
	}
	docs := documents(strings.Repeat("a", 40))
	for i, doc := range docs {
		if err := Add(path, doc, run); err != nil {
			t.Fatal(err)
		}
		if page := read1(t, path); !strings.Contains(page, `<ul class="facts">`+facts[i]+"</ul>") {
			t.Errorf("after step %d:\n%s", i, page)
		}
	}
	page := read1(t, path)
	for _, want := range []string{
		"<title>team/shop: failed</title>", `<a href="https://gitea.example.org/team/shop/actions/runs/17">log</a>`,
		`<a href="https://gitea.example.org/team/-/packages/container/api/abc">api</a>`, `<code>gitea.example.org/team/api:abc@sha256:1234</code>`,
		`<span class="badge built-pushed">built, pushed</span>`, "3 reused, 0 mounted, 1 sent", "second line</pre>", "<h2>Since cccccccccccc</h2>", "<li>go 1.21.3 → 1.21.4", "Deployment/shop/api", "2 objects unchanged",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	p, err := parse([]byte(page))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(docs, p.documents()); diff != "" {
		t.Errorf("what the page carries: %s", diff)
	}

	// Another commit's run, and the same commit's next run, begin anew.
	if err := Add(path, docs[0], run); err != nil {
		t.Fatal(err)
	}
	if page := read1(t, path); strings.Contains(page, "Deployment") {
		t.Error("a new plan kept the last run's deploy")
	}
	if err := Add(path, documents(strings.Repeat("b", 40))[1], run); err != nil {
		t.Fatal(err)
	}
	if page := read1(t, path); strings.Contains(page, "no cache has it") {
		t.Error("another commit's build kept the plan")
	}
}

// Names and logs come from people who may want to run something in the reader's browser.
func TestEverythingIsEscaped(t *testing.T) {
	for _, doc := range documents(hostile) {
		path := filepath.Join(t.TempDir(), "report.html")
		if err := Add(path, doc, Run{Repository: hostile, Server: hostile, ID: hostile, Ref: hostile}); err != nil {
			t.Fatal(err)
		}
		page := read1(t, path)
		if strings.Contains(page, "<img") || strings.Contains(page, "alert(1)</script>") || strings.Contains(page, `"'>`) {
			t.Errorf("not escaped:\n%s", page)
		}
	}
}

// The server of a run comes from the runner; a scheme that runs code must not become a link.
func TestLinksAreHTTP(t *testing.T) {
	p := Pipeline{Run: Run{Server: "javascript:alert(1)//", Repository: "a/b", ID: "1"}}
	if link := p.log(); link != "" {
		t.Errorf("log: %s", link)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.html")
	if err := os.WriteFile(path, []byte("<p>mine</p>"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, documents("c")[0], Run{}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if got := read1(t, path); got != "<p>mine</p>" {
		t.Errorf("the file is now %s", got)
	}
}

func TestShardsAreJoined(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.html")
	for _, shard := range []int{2, 1, 2} {
		doc := &handoff.BuildResult{Header: handoff.Header{Kind: handoff.KindBuildResult, Commit: "c"}, Shard: shard, Shards: 2,
			Images: []handoff.BuiltImage{{Name: fmt.Sprint("image-", shard), State: handoff.BuildBuilt}}}
		if err := Add(path, doc, Run{}); err != nil {
			t.Fatal(err)
		}
	}
	if page := read1(t, path); !strings.Contains(page, "<li>2 images</li><li>2 built</li>") {
		t.Error(page)
	}
}

func FuzzParse(f *testing.F) {
	var page bytes.Buffer
	if err := (&Pipeline{Plan: documents("c")[0].(*handoff.Plan)}).HTML(&page); err != nil {
		f.Fatal(err)
	}
	f.Add(page.Bytes())
	f.Fuzz(func(t *testing.T, page []byte) {
		p, err := parse(page)
		if err == nil {
			err = p.HTML(new(bytes.Buffer))
		}
		if err != nil && !errors.Is(err, ErrForeign) {
			t.Error(err)
		}
	})
}
