package report_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/renderer/html"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/report"
)

// lookAtSummary is what a reader sees of a summary, asked of the browser.
const lookAtSummary = `({
	rows: document.querySelectorAll("table")[0].querySelectorAll("tbody tr").length,
	names: [...document.querySelectorAll("table")[0].querySelectorAll("tbody td:first-child")].map(e => e.innerText),
	cells: [...document.querySelectorAll("table")[0].querySelectorAll("tr")].map(e => e.children.length),
	foreign: [...document.body.querySelectorAll("*")].filter(e => !["H3","H4","P","TABLE","THEAD","TBODY","TR","TH","TD","A","STRONG","EM","BR","UL","LI","PRE","CODE"].includes(e.tagName)).map(e => e.outerHTML),
	links: [...document.querySelectorAll("a")].map(e => e.href),
	graph: [...document.querySelectorAll("code.language-mermaid")].map(e => e.innerText),
	text: document.body.innerText,
})`

type seenSummary struct {
	Rows    int      `json:"rows"`
	Names   []string `json:"names"`
	Cells   []int    `json:"cells"`
	Foreign []string `json:"foreign"` // elements that a summary has not
	Links   []string `json:"links"`
	Graph   []string `json:"graph"`
	Text    string   `json:"text"`
}

// The step summary as Gitea draws it, with the renderer Gitea has and none of what it filters afterwards, in a browser.
func TestSummaryReadable(t *testing.T) {
	ctx := browser(t)
	var mu sync.Mutex
	var requests, problems []string
	err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch event := event.(type) {
		case *network.EventRequestWillBeSent:
			requests = append(requests, event.Request.URL)
		case *page.EventJavascriptDialogOpening:
			problems = append(problems, event.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		images, rows int
		says         string
	}{{6, 6, ""}, {300, 200, "… and 100 images not listed here: 100 unchanged. The log and the hand-over files have all of them."}, {5000, 200, "… and 4800 images not listed here: "}} {
		t.Run(fmt.Sprint(c.images), func(t *testing.T) {
			p := &report.Pipeline{Run: report.Run{Repository: "team/shop", Server: "https://registry.example.org", ID: "17"}}
			for _, doc := range documents(c.images) {
				p.Put(doc)
			}
			const script = "<script>alert(1)</script>\"]; click i0 \"javascript:alert(1)"
			p.Plan.Changes = &handoff.Changes{Base: strings.Repeat("c", 40), Changed: []handoff.ChangedImage{{ImageName: handoff.ImageName{Name: long},
				Causes: []handoff.Cause{{Kind: handoff.CauseSource, What: script, Via: []string{script}}}}}}
			text := p.Markdown(&report.Stop{Step: "push-images", Code: 3, Causes: []report.Cause{{Error: script, Hint: "give a `token`"}}})
			if len(text) > 1<<20 {
				t.Errorf("%d bytes", len(text))
			}
			var body bytes.Buffer
			if err := goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithRendererOptions(html.WithUnsafe())).Convert([]byte(text), &body); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "summary.html")
			if err := os.WriteFile(path, append([]byte("<!doctype html><meta charset=utf-8><body>"), body.Bytes()...), 0o644); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			requests = nil
			mu.Unlock()
			if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate("file://"+path)); err != nil {
				t.Fatal(err)
			}
			saw, err := chromedp.Run(ctx, chromedp.Evaluate[seenSummary](lookAtSummary))
			if err != nil {
				t.Fatal(err)
			}
			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "summary.png"), shot, 0o644); err != nil {
				t.Fatal(err)
			}
			// What failed comes first, then what was done; each name is read as it is, each row has its cells.
			if saw.Rows != c.rows || saw.Names[0] != long || saw.Names[1] != "service-000" || !strings.Contains(saw.Text, c.says) || strings.Contains(saw.Text, "not listed") != (c.says != "") {
				t.Errorf("%d rows, %.3q:\n%.2000s", saw.Rows, saw.Names, saw.Text)
			}
			for i, n := range saw.Cells {
				if n != 6 {
					t.Errorf("row %d has %d cells", i, n)
				}
			}
			if len(saw.Foreign) > 0 {
				t.Errorf("elements that are not ours: %.5q", saw.Foreign)
			}
			for _, link := range saw.Links {
				if !strings.HasPrefix(link, "https://registry.example.org/team/") && link != "https://cache.example.org/" {
					t.Errorf("a link to %s", link)
				}
			}
			if len(saw.Graph) != 1 || !strings.HasPrefix(saw.Graph[0], "graph LR\n  c0[\"#60;script#62;alert#40;1#41;#60;/script#62;#34;#93;#59; click") {
				t.Errorf("the graph is %q", saw.Graph)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(requests) != 1 || len(problems) > 0 {
				t.Errorf("the summary asked for %q and said %q", requests, problems)
			}
		})
	}
}
