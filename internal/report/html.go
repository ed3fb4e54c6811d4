package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

//go:embed style.css
var style string

// HTML writes the page. Everything from outside is escaped where it is written; html/template would do the same, for half a
// megabyte in each of the four binaries.
func (p *Pipeline) HTML(w io.Writer) error {
	page := new(page)
	title := "flakeship"
	if p.Run.Repository != "" {
		title = p.Run.Repository
	}
	outcome := "done"
	if p.failed() {
		outcome = "failed"
	}
	page.raw("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n")
	page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
	page.text("<title>%s: %s</title>\n", title, outcome)
	page.raw("<style>\n" + style + "</style>\n")
	page.text("<header class=\"%s\">\n<h1>%s</h1>\n<p class=\"where\">", outcome, title)
	if p.Run.Ref != "" {
		page.text("%s ", p.Run.Ref)
	}
	if p.Commit != "" {
		page.text("<code>%.12s</code> ", p.Commit)
	}
	if link := p.log(); link != "" {
		page.text("<a href=\"%s\">log</a>", link)
	}
	page.raw("</p>\n<ul class=\"facts\">")
	for _, fact := range p.facts() {
		page.text("<li>%s</li>", fact)
	}
	page.raw("</ul>\n</header>\n<main>\n")

	p.failures(page)
	p.changes(page)
	p.imageTable(page)
	p.objectTable(page)
	page.raw("</main>\n")
	for _, doc := range p.documents() {
		text, err := json.Marshal(doc) // escapes <, so that nothing ends the element
		if err != nil {
			return err
		}
		page.raw(fmt.Sprintf("<script type=\"application/json\" class=\"flakeship-%s\">%s</script>\n", kind(doc), text))
	}
	_, err := io.WriteString(w, page.String())
	return err
}

// page is HTML as it is written.
type page struct{ strings.Builder }

func (b *page) raw(markup string) { b.WriteString(markup) }

// text writes markup with values in it, each escaped for text and for a quoted attribute.
func (b *page) text(markup string, values ...any) {
	for i, v := range values {
		if s, ok := v.(string); ok {
			values[i] = html.EscapeString(s)
		}
	}
	fmt.Fprintf(b, markup, values...)
}

// failures come first, open: they are why somebody looks.
func (p *Pipeline) failures(page *page) {
	for _, i := range p.images() {
		reason := i.failure()
		if reason == "" {
			continue
		}
		page.text("<section class=\"failure\">\n<h2>%s</h2>\n<p>%s</p>\n", i.title(true), reason)
		if i.built != nil && i.built.Failure != nil {
			f := i.built.Failure
			if f.Derivation != "" {
				page.text("<p>derivation <code>%s</code></p>\n", f.Derivation)
			}
			if len(f.Log) > 0 {
				page.text("<pre>%s</pre>\n", strings.Join(f.Log, "\n"))
			}
		}
		page.raw("</section>\n")
	}
	if p.Deploy == nil {
		return
	}
	for _, o := range p.Deploy.Objects {
		if objectFailed(o) {
			page.text("<section class=\"failure\">\n<h2>%s</h2>\n<p>%s</p>\n<p class=\"where\">%s</p>\n</section>\n", o.ID(), o.Message, o.Source)
		}
	}
}

// title names the image, with its system where a run has several.
func (i *image) title(several bool) string {
	if several && i.system != "" {
		return i.name + " (" + i.system + ")"
	}
	return i.name
}

// changes say why images are others than at an earlier commit, when the plan compared with one.
func (p *Pipeline) changes(page *page) {
	if p.Plan == nil || p.Plan.Changes == nil {
		return
	}
	c := p.Plan.Changes
	page.text("<section>\n<h2>Since %s</h2>\n<ul class=\"changes\">\n", fmt.Sprintf("%.12s", c.Base))
	for _, id := range c.Added {
		page.text("<li><b>%s</b> added\n", id.Name)
	}
	for _, id := range c.Removed {
		page.text("<li><b>%s</b> removed\n", id.Name)
	}
	for _, img := range c.Changed {
		page.text("<li><b>%s</b><ul>", img.Name)
		for _, cause := range img.Causes {
			page.text("<li>%s <span class=\"why\">%s</span>", cause.String(), strings.Join(cause.Via, " → "))
		}
		page.raw("</ul>\n")
	}
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		page.raw("<li>no image is another\n")
	}
	page.raw("</ul>\n</section>\n")
}

func (p *Pipeline) imageTable(page *page) {
	images := p.images()
	if len(images) == 0 {
		return
	}
	several := false
	for _, i := range images {
		several = several || i.system != images[0].system
	}
	var still []*image
	page.raw("<section>\n<h2>Images</h2>\n" + imageHead)
	for _, i := range images {
		if i.work() == unchanged {
			still = append(still, i)
			continue
		}
		p.imageRow(page, i, several)
	}
	page.raw("</tbody>\n</table>\n")
	if len(still) > 0 { // there, and out of the way
		page.text("<details>\n<summary>%s unchanged</summary>\n", count(len(still), "image"))
		page.raw(imageHead)
		for _, i := range still {
			p.imageRow(page, i, several)
		}
		page.raw("</tbody>\n</table>\n</details>\n")
	}
	page.raw("</section>\n")
}

const imageHead = "<table>\n<thead><tr><th>image<th>done<th>found<th>layers<th>sent<th>reference</tr></thead>\n<tbody>\n"

func (p *Pipeline) imageRow(page *page, i *image, several bool) {
	work := i.work()
	page.raw("<tr><td data-label=\"image\">")
	if link := p.link(i); link != "" {
		page.text("<a href=\"%s\">%s</a>", link, i.title(several))
	} else {
		page.text("%s", i.title(several))
	}
	page.text("<td data-label=\"done\"><span class=\"badge %s\">%s</span>", strings.NewReplacer(", ", "-", " ", "-").Replace(work), work)
	if state, reason := i.verdict(); state != "" {
		page.text("<td data-label=\"found\"><span><b>%s</b> <span class=\"why\">%s</span></span>", state, reason)
	} else {
		page.raw("<td>")
	}
	page.text("<td data-label=\"layers\">%s", i.layers())
	page.raw("<td data-label=\"sent\">")
	if i.pushed != nil && i.pushed.Uploaded > 0 {
		page.text("%s", size(i.pushed.Uploaded))
	}
	page.raw("<td data-label=\"reference\">")
	if ref := i.reference(); ref != "" {
		page.text("<code>%s</code>", ref)
	}
	page.raw("</tr>\n")
}

// objectTable shows what changed or was waited for; the rest is counted.
func (p *Pipeline) objectTable(page *page) {
	if p.Deploy == nil || len(p.Deploy.Objects) == 0 {
		return
	}
	page.raw("<section>\n<h2>Objects</h2>\n<table>\n<thead><tr><th>object<th>done<th>rollout<th>seconds<th></tr></thead>\n<tbody>\n")
	quiet := 0
	for _, o := range p.Deploy.Objects {
		if o.Action == handoff.ActionUnchanged && !objectFailed(o) {
			quiet++
			continue
		}
		page.text("<tr><td data-label=\"object\">%s<td data-label=\"done\"><span class=\"badge %s\">%s</span><td data-label=\"rollout\">", o.ID(), string(o.Action), string(o.Action))
		if o.Rollout != handoff.RolloutNone {
			page.text("<span class=\"badge %s\">%s</span><td data-label=\"seconds\">%.1f", string(o.Rollout), string(o.Rollout), o.Seconds)
		} else {
			page.raw("<td data-label=\"seconds\">")
		}
		page.text("<td data-label=\"why\">%s</tr>\n", o.Message)
	}
	page.raw("</tbody>\n</table>\n")
	if quiet > 0 {
		page.text("<p class=\"where\">%s unchanged</p>\n", count(quiet, "object"))
	}
	page.raw("</section>\n")
}

func kind(doc handoff.Document) handoff.Kind {
	switch doc.(type) {
	case *handoff.Plan:
		return handoff.KindPlan
	case *handoff.BuildResult:
		return handoff.KindBuildResult
	case *handoff.PushResult:
		return handoff.KindPushResult
	}
	return handoff.KindDeployResult
}
