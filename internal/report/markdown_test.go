package report

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
)

func pipeline(docs ...handoff.Document) *Pipeline {
	p := &Pipeline{Run: Run{Repository: "team/shop", Server: "https://gitea.example.org", ID: "17"}}
	for _, doc := range docs {
		p.Put(doc)
	}
	return p
}

func TestMarkdownTellsOfTheWholeRun(t *testing.T) {
	docs := documents(strings.Repeat("a", 40))
	text := pipeline(docs...).Markdown(nil)
	for _, want := range []string{
		"### flakeship: failed\n\n3 images, 1 built, 1 pushed, 2.0 KiB sent, 1 of 3 objects changed\n",
		"| image | found | built | pushed | deployed | seconds |\n|---|---|---|---|---|---|\n| bad | missing | [failed: exit code 1](https://gitea.example.org/team/shop/actions/runs/17) |  |  |  |\n",
		"| [api](https://gitea.example.org/team/-/packages/container/api/abc) | missing | [built, copied](https://gitea.example.org/team/shop/actions/runs/17) | 2.0 KiB, sha256:1234 | Deployment/shop/api configured and ready | 14.0 |\n",
		"| [web](https://gitea.example.org/team/-/packages/container/web/def) | pushed |  | sha256:5678 | CronJob/shop/&lt;/script&gt;",
		"#### Since cccccccccccc\n", "| api | changed | go 1.21.3 → 1.21.4 | &lt;/script&gt;", "  c0[\"go 1.21.3 → 1.21.4\"]\n  c0 --> i0([\"api\"])\n```\n",
		"[The log of this run](https://gitea.example.org/team/shop/actions/runs/17)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
	log := pipeline(docs...).Text()
	for _, want := range []string{"image  found    built ", "bad    missing  failed: exit code 1 ", "api    missing  built, copied ", "Deployment/shop/api configured and ready  14.0\n", "… and 1 image not listed here: 1 unchanged\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

func TestMarkdownSaysWhereItStopped(t *testing.T) {
	stop := &Stop{Step: "push-images", Code: 3, Causes: []Cause{{"push api: 401 <b>|", "give a token"}}}
	text := pipeline(documents("c")[:2]...).Markdown(stop)
	if want := "### flakeship: failed\n\n3 images, 1 built\n\n**Stopped in push-images**, exit code 3:\n\n- push api: 401 &lt;b&gt;\\|<br>*Hint:* give a token\n\n| image |"; !strings.HasPrefix(text, want) {
		t.Errorf("the summary does not begin with %q:\n%s", want, text)
	}
	if text := new(Pipeline).Markdown(&Stop{Step: "nix-cache-check", Code: 2}); !strings.Contains(text, "Stopped in nix-cache-check") || strings.Contains(text, "| image |") {
		t.Errorf("with no document:\n%s", text)
	}
	for range 2 * maxCauses {
		stop.Causes = append(stop.Causes, stop.Causes[0])
	}
	if text := stop.Markdown(); !strings.Contains(text, "- and 21 more; the log has all\n") {
		t.Errorf("many causes:\n%s", text)
	}
}

// many is a run of n images, whose names are as hostile and as long as name makes them.
func many(n int, name func(int) string) *Pipeline {
	plan, built, changes := &handoff.Plan{}, &handoff.BuildResult{}, &handoff.Changes{Base: strings.Repeat("c", 40)}
	for i := range n {
		id := handoff.ImageName{Name: name(i), System: "x86_64-linux"}
		p := handoff.PlannedImage{Name: id.Name, System: id.System, State: handoff.StatePushed}
		b := handoff.BuiltImage{Name: id.Name, System: id.System, State: handoff.BuildSkipped}
		if i%2 == 0 {
			p.State, b.State = handoff.StateMissing, handoff.BuildBuilt
			changes.Changed = append(changes.Changed, handoff.ChangedImage{ImageName: id, Causes: []handoff.Cause{
				{Kind: handoff.CauseSource, What: name(i % 100)}, {Kind: handoff.CauseVersion, What: "go", From: "1", To: "2", Via: []string{name(i)}}}})
		}
		plan.Images, built.Images = append(plan.Images, p), append(built.Images, b)
	}
	plan.Changes = changes
	return pipeline(plan, built)
}

func TestMarkdownIsBoundedAndSaysSo(t *testing.T) {
	plain := func(i int) string { return fmt.Sprintf("service-%04d", i) }
	hostile := func(i int) string { return fmt.Sprint(i, strings.Repeat("@<|`[](x)\n```\n", 200)) }
	for _, c := range []struct {
		n    int
		name func(int) string
		cut  string
	}{
		{6, plain, ""},
		{300, plain, "… and 100 images not listed here: 100 unchanged."},
		{5000, plain, "… and 4800 images not listed here: 2300 built, 2500 unchanged."},
		{5000, hostile, "not listed here"},
	} {
		text := many(c.n, c.name).Markdown(nil)
		if len(text) > 900<<10 {
			t.Errorf("%d images: %d bytes", c.n, len(text))
		}
		if cut := strings.Contains(text, "not listed here"); cut != (c.cut != "") || !strings.Contains(text, c.cut) {
			t.Errorf("%d images: cut is %v, want %q:\n%.3000s", c.n, cut, c.cut, text)
		}
		checkInert(t, text)
	}
}

var (
	separator = regexp.MustCompile(`(^|[^\\])\|`)
	graphLine = regexp.MustCompile(`^(graph LR|  c\d+\["[^"<>\[\]()` + "`" + `|@]*"\]|  c\d+ --> i\d+(\(\["[^"<>\[\]()` + "`" + `|@]*"\]\))?)$`)
)

// checkInert checks that a summary has no markup but its own.
func checkInert(t *testing.T, text string) {
	t.Helper()
	graph, edges := false, 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "```mermaid":
			graph = true
		case line == "```" && graph:
			graph = false
		case graph:
			if edges += strings.Count(line, "-->"); !graphLine.MatchString(line) || edges > maxEdges {
				t.Errorf("in the graph: %.200q", line)
			}
		case strings.Contains(line, "`"), strings.Contains(strings.ReplaceAll(line, "<br>", ""), "<"), strings.Contains(line, "@"):
			t.Errorf("raw: %.200q", line)
		case strings.HasPrefix(line, "|"):
			if n := len(separator.FindAllString(line, -1)); n != 7 && n != 5 {
				t.Errorf("%d separators: %.200q", n, line)
			}
		}
	}
}

func FuzzMarkdown(f *testing.F) {
	f.Add("api", "go 1.21", "https://x.test/a")
	f.Add("`|<b>\n```mermaid", "\"]; click i0", "javascript:alert(1)")
	f.Fuzz(func(t *testing.T, name, cause, server string) {
		p := many(3, func(i int) string { return name })
		p.Plan.Changes.Changed[0].Causes[0].What = cause
		p.Run = Run{Server: server, Repository: name, ID: cause}
		checkInert(t, p.Markdown(&Stop{Step: "push-images", Causes: []Cause{{cause, name}}}))
	})
}
