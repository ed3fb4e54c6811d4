package action

import (
	"cmp"
	"os"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/inert"
	"github.com/flakeship/flakeship/internal/report"
)

// The root action runs the four steps with these variables. Its summary is one for all of them: the last step that runs writes it,
// which is the first that fails, or else the one that is told that nothing follows.
const (
	pipelineVariable = "FLAKESHIP_PIPELINE" // "more": a step follows; "last": none does; empty: this is an action of its own
	documentVariable = "FLAKESHIP_"         // and a kind of document: the path of what an earlier step wrote
)

// Summary sets the Markdown of the step's summary. table tells of the whole step: in the root action the pipeline's takes its
// place. details are what only this step knows, and stand below either. Text from outside goes through Cell or Pre.
func (e *Env) Summary(table, details string) { e.table, e.details = table, details }

// Cell escapes text for a table cell of the step summary, see package inert.
func Cell(text string) string { return inert.Cell(text) }

// Pre makes text a block of the step summary, see package inert.
func Pre(text string) string { return inert.Pre(text) }

// printPipeline gives the log what the summary has, for forges that show none. It comes before what failed: that is to be last.
func (e *Env) printPipeline(failed bool) {
	if place := e.Getenv(pipelineVariable); place == "last" || place != "" && failed {
		if text := e.pipeline().Text(); text != "" {
			e.print(text)
		}
	}
}

// writeSummary is called once, when all is done or has failed. A summary that cannot be written is worth a warning, not a failed
// step.
func (e *Env) writeSummary(code Code) {
	place := e.Getenv(pipelineVariable)
	if code == Done && place == "more" {
		return
	}
	var stop *report.Stop
	if code != Done {
		stop = &report.Stop{Step: e.spec.Name, Code: int(code)}
		for _, f := range e.failures {
			stop.Causes = append(stop.Causes, report.Cause{Error: e.scrub(f.Err.Error()), Hint: e.scrub(f.Hint)})
		}
	}
	text := e.table
	switch {
	case place != "":
		text = e.pipeline().Markdown(stop)
	case stop != nil:
		text = cmp.Or(text, "### "+e.spec.Name+"\n\n") + stop.Markdown()
	}
	path := e.Getenv("GITHUB_STEP_SUMMARY")
	if text += e.details; path == "" || text == "" {
		return
	}
	if err := appendFile(path, fit(e.scrub(text))); err != nil {
		e.Warnf("step summary: %v", err)
	}
}

// pipeline is what the steps before this one left, and what this one did.
func (e *Env) pipeline() *report.Pipeline {
	p := &report.Pipeline{Run: e.run()}
	for _, kind := range []handoff.Kind{handoff.KindPlan, handoff.KindBuildResult, handoff.KindPushResult} {
		p.Load(kind, e.Getenv(documentVariable+strings.ToUpper(strings.ReplaceAll(string(kind), "-", "_"))))
	}
	if e.written != nil {
		p.Put(e.written)
	}
	return p
}

// run is the workflow run this is part of.
func (e *Env) run() report.Run {
	r := report.Run{Repository: e.Getenv("GITHUB_REPOSITORY"), Server: e.Getenv("GITHUB_SERVER_URL"), ID: e.Getenv("GITHUB_RUN_ID"), Ref: e.Getenv("GITHUB_REF_NAME")}
	if e.Getenv("GITEA_ACTIONS") == "true" { // whose pages count the runs of a repository
		r.ID = e.Getenv("GITHUB_RUN_NUMBER")
	}
	return r
}

// scrub takes the secrets out of text: Gitea does not mask summaries.
func (e *Env) scrub(text string) string {
	for _, secret := range e.secrets {
		if len(secret) > 5 { // a shorter one would blot out half the text
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

// maxSummary is what runners take of one step.
const maxSummary = 1 << 20

// fit cuts a summary at the end of a line, and says so.
func fit(text string) string {
	const note = "\n\n… the rest of this summary is left out: it is longer than runners take. The log has all of it.\n"
	if len(text) <= maxSummary {
		return text
	}
	text = text[:maxSummary-len(note)-len("</pre></details>")]
	text = text[:strings.LastIndexByte(text, '\n')+1]
	if strings.LastIndex(text, "<pre>") > strings.LastIndex(text, "</pre>") {
		text += "</pre>"
	}
	if strings.LastIndex(text, "<details>") > strings.LastIndex(text, "</details>") {
		text += "</details>"
	}
	return text + note
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return cmp.Or(err, f.Close())
}
