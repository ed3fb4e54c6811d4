// Package report_test looks at the run's page as its readers do: in a browser, at a desk and on a phone, by day and by night.
// `go test -artifacts` keeps the screenshots.
package report_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/report"
)

// browser starts Chromium, without a sandbox of its own when root may not have one.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.NoSandbox)
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	ctx, stop = context.WithTimeout(ctx, 3*time.Minute) // a hang, on any machine
	t.Cleanup(stop)
	return ctx
}

// long is a name as hostile as they get.
const long = "<b onmouseover=alert(1)>a-very-long-image-name-without-a-single-place-to-break-it-that-somebody-had-to-choose"

// documents are those of a run with n images, one of which was built, one of which failed.
func documents(n int) []handoff.Document {
	header := func(kind handoff.Kind) handoff.Header {
		return handoff.Header{Kind: kind, Commit: strings.Repeat("ab", 20)}
	}
	plan := &handoff.Plan{Header: header(handoff.KindPlan)}
	built := &handoff.BuildResult{Header: header(handoff.KindBuildResult)}
	pushed := &handoff.PushResult{Header: header(handoff.KindPushResult)}
	for i := range n {
		name, tag := fmt.Sprintf("service-%03d", i), strings.Repeat("4vhpby5n2nx96m83", 2)
		p := handoff.PlannedImage{Name: name, System: "x86_64-linux", State: handoff.StatePushed, Reason: "registry.example.org/team/" + name + " has tag " + tag}
		b := handoff.BuiltImage{Name: name, System: "x86_64-linux", State: handoff.BuildSkipped}
		u := handoff.PushedImage{Name: name, Repository: "registry.example.org/team/" + name, Tag: tag, Digest: "sha256:" + strings.Repeat("0123456789abcdef", 4), Systems: []string{"x86_64-linux"}, State: handoff.PushUnchanged}
		switch i {
		case 0:
			p.State, p.Reason = handoff.StateMissing, "https://cache.example.org does not have it"
			b.State, u.State, u.Uploaded, u.Layers = handoff.BuildBuilt, handoff.PushUploaded, 123456, handoff.Layers{Reused: 12, Uploaded: 1}
		case 1:
			p.Name, b.Name, p.State, b.State = long, long, handoff.StateMissing, handoff.BuildFailed
			b.Failure = &handoff.Failure{Derivation: "/nix/store/" + tag + "-api.drv", Reason: "builder failed with exit code 1", Log: []string{"compiling", strings.Repeat("x", 400), "error: expected `;`"}}
			plan.Images, built.Images = append(plan.Images, p), append(built.Images, b)
			continue
		}
		plan.Images, built.Images, pushed.Images = append(plan.Images, p), append(built.Images, b), append(pushed.Images, u)
	}
	deployed := &handoff.DeployResult{Header: header(handoff.KindDeployResult), Objects: []handoff.DeployedObject{
		{Kind: "Deployment", Namespace: "shop", Name: "service-000", Action: handoff.ActionConfigured, Rollout: handoff.RolloutReady, Seconds: 2.25, Message: "3 pods", Images: []string{"service-000"}},
		{Kind: "Service", Namespace: "shop", Name: "service-000", Action: handoff.ActionUnchanged, Rollout: handoff.RolloutNone},
	}}
	return []handoff.Document{plan, built, pushed, deployed}
}

// write makes the page of such a run.
func write(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	for _, doc := range documents(n) {
		if err := report.Add(path, doc, report.Run{Repository: "team/shop", Server: "https://gitea.example.org", ID: "17", Ref: "main"}); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// look is what a reader sees, asked of the browser.
const look = `({
	wide: [...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
	dark: getComputedStyle(document.body).backgroundColor.match(/\d+/g).every(c => c < 64),
	facts: document.querySelector(".facts").innerText,
	rows: document.querySelectorAll("tbody tr").length,
	visible: [...document.querySelectorAll("tbody tr")].filter(e => e.checkVisibility()).length,
	failures: document.querySelectorAll(".failure").length,
})`

type seen struct {
	Wide     []string `json:"wide"` // elements that stick out of the window
	Dark     bool     `json:"dark"`
	Facts    string   `json:"facts"`
	Rows     int      `json:"rows"`
	Visible  int      `json:"visible"`
	Failures int      `json:"failures"`
}

func TestReadable(t *testing.T) {
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
	for _, images := range []int{6, 300} {
		path := write(t, images)
		for _, view := range []struct {
			name          string
			width, height int64
			scheme        string
			dark          bool
		}{{"desk", 1280, 900, "light", false}, {"phone", 390, 844, "light", false}, {"night", 390, 844, "dark", true}} {
			t.Run(fmt.Sprintf("%d-%s", images, view.name), func(t *testing.T) {
				media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: view.scheme}}}
				if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				requests = nil
				mu.Unlock()
				if err := chromedp.Do(ctx, chromedp.EmulateViewport(view.width, view.height), chromedp.Navigate("file://"+path)); err != nil {
					t.Fatal(err)
				}
				saw, err := chromedp.Run(ctx, chromedp.Evaluate[seen](look))
				if err != nil {
					t.Fatal(err)
				}
				shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "report.png"), shot, 0o644); err != nil {
					t.Fatal(err)
				}
				if len(saw.Wide) > 0 {
					t.Errorf("wider than the window: %q", saw.Wide)
				}
				if saw.Dark != view.dark {
					t.Errorf("dark is %v", saw.Dark)
				}
				// The unchanged images and objects are there, folded: what happened is on the first screens.
				if !strings.Contains(saw.Facts, fmt.Sprint(images)+" images") || saw.Rows != images+1 || saw.Visible != 3 || saw.Failures != 1 {
					t.Errorf("seen: %+v", saw)
				}
				mu.Lock()
				defer mu.Unlock()
				if len(requests) != 1 || len(problems) > 0 {
					t.Errorf("the page asked for %q and said %q", requests, problems)
				}
				picture, err := png.DecodeConfig(bytes.NewReader(shot))
				if err != nil || picture.Height > 4000 {
					t.Errorf("%d pixels high: %v", picture.Height, err)
				}
			})
		}
	}
}
