package action_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
)

// summaryOf runs a step with more environment and returns its summary.
func summaryOf(t *testing.T, more map[string]string, run func(context.Context, *action.Env) error) (summary string, got outcome) {
	t.Helper()
	env := runnerEnv(t)
	maps.Copy(env, more)
	got = start(t, env, nil, run)
	text, err := os.ReadFile(env["GITHUB_STEP_SUMMARY"])
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text), got
}

func TestTheLastStepTellsOfThePipeline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "build-result.json")
	if _, err := handoff.WriteFile(path, &handoff.BuildResult{Images: []handoff.BuiltImage{{Name: "earlier", State: handoff.BuildBuilt}}}); err != nil {
		t.Fatal(err)
	}
	work := func(_ context.Context, e *action.Env) error {
		e.Summary("### of the step\n", "details\n")
		_, err := e.WriteResult(&handoff.Plan{Images: []handoff.PlannedImage{{Name: "now", State: handoff.StateMissing, Build: true}}})
		return err
	}
	fails := func(ctx context.Context, e *action.Env) error {
		return errors.Join(work(ctx, e), action.Fail(action.Denied, errors.New("no s3cr3t-token"), "give a <token>"))
	}
	const stopped = "**Stopped in try-it**, exit code 3:\n\n- no \\*\\*\\*<br>*Hint:* give a &lt;token&gt;\n"
	for _, c := range []struct {
		name, place    string
		run            func(context.Context, *action.Env) error
		want, unwanted []string
	}{
		{"alone", "", work, []string{"### of the step\ndetails\n"}, []string{"earlier"}},
		{"alone, failed", "", fails, []string{"### of the step\n" + stopped, "details\n"}, nil},
		{"a step follows", "more", work, nil, []string{"#"}},
		{"the last", "last", work, []string{"### flakeship: done\n", "| earlier |", "| now | missing |", "\ndetails\n"}, []string{"of the step"}},
		{"one that fails before the last", "more", fails, []string{"### flakeship: failed\n", stopped, "| earlier |", "| now | missing |", "\ndetails\n"}, []string{"of the step"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, got := summaryOf(t, map[string]string{"FLAKESHIP_PIPELINE": c.place, "FLAKESHIP_BUILD_RESULT": path, "INPUT_TOKEN": "s3cr3t-token"}, c.run)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("the summary lacks %q:\n%s", want, text)
				}
			}
			for _, unwanted := range append(c.unwanted, "s3cr3t") {
				if strings.Contains(text, unwanted) {
					t.Errorf("the summary has %q:\n%s", unwanted, text)
				}
			}
			// Where no summary is shown, the log says the same.
			if strings.Contains(got.stdout, "earlier  ") != strings.Contains(text, "| earlier |") {
				t.Errorf("the log:\n%s", got.stdout)
			}
		})
	}

	// Inputs that are not read at all.
	text, got := summaryOf(t, map[string]string{"FLAKESHIP_PIPELINE": "more", "FLAKESHIP_BUILD_RESULT": path, "INPUT_JOBS": "many"}, work)
	if got.code != 2 || !strings.Contains(text, "**Stopped in try-it**, exit code 2:\n\n- input jobs is \"many\", not a whole number<br>") || !strings.Contains(text, "| earlier |") {
		t.Errorf("exit code %d:\n%s", got.code, text)
	}
}

func TestASummaryFitsTheRunner(t *testing.T) {
	text, _ := summaryOf(t, nil, func(_ context.Context, e *action.Env) error {
		e.Summary("### x\n", "<details>"+action.Pre(strings.Repeat("a line of a log\n", 200_000)))
		return nil
	})
	if len(text) > 1<<20 || !strings.HasSuffix(text, "a line of a log\n</pre></details>\n\n… the rest of this summary is left out: it is longer than runners take. The log has all of it.\n") {
		t.Errorf("%d bytes, ends in %q", len(text), text[max(0, len(text)-200):])
	}
}
