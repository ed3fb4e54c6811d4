package action_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	githubactions "github.com/sethvargo/go-githubactions"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
)

var spec = action.Spec{
	Name: "try-it", Summary: "tries it",
	Inputs: []action.Input{
		{Name: "plan", Kind: action.Document, Required: true, Help: "the plan"},
		{Name: "keep-going", Kind: action.Bool, Default: "true", Help: "go on"},
		{Name: "jobs", Kind: action.Int, Default: "8", Help: "requests in flight"},
		{Name: "tags", Kind: action.List, Help: "more tags"},
		{Name: "on-cache-error", Kind: action.Choice, Choices: []string{"fail", "build"}, Default: "fail", Help: "policy"},
		{Name: "token", Secret: true, Help: "secret"},
		{Name: "results", Kind: action.Documents, Help: "several"},
		{Name: "timeout", Kind: action.Duration, Default: "10m", Help: "longest time"},
	},
	Outputs: []action.Output{{Name: "plan", Help: "path"}, {Name: "plan-json", Help: "text"}, {Name: "images", Help: "names"}},
}

// outcome is all a run left behind.
type outcome struct {
	code           int
	stdout, stderr string
	output         string // content of the runner's output file
}

func start(t *testing.T, env map[string]string, args []string, run func(context.Context, *action.Env) error) outcome {
	t.Helper()
	return startContext(t.Context(), env, args, run)
}

func startContext(ctx context.Context, env map[string]string, args []string, run func(context.Context, *action.Env) error) outcome {
	var stdout, stderr strings.Builder
	code := action.Main(ctx, action.Process{Args: args, Getenv: func(k string) string { return env[k] }, Stdout: &stdout, Stderr: &stderr}, spec, run)
	out, _ := os.ReadFile(env["GITHUB_OUTPUT"])
	return outcome{code, stdout.String(), stderr.String(), string(out)}
}

func runnerEnv(t *testing.T) map[string]string {
	dir := t.TempDir()
	return map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": filepath.Join(dir, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary"), "RUNNER_TEMP": dir, "INPUT_PLAN": "p"}
}

func TestFlagsWinOverEnvironmentOverDefaults(t *testing.T) {
	env := map[string]string{"INPUT_PLAN": "from-env", "INPUT_KEEP_GOING": "true", "INPUT_ON-CACHE-ERROR": "build", "INPUT_TAGS": "a\n\n b ,c\n"}
	start(t, env, []string{"--plan", "from-flag", "--keep-going", "false", "-jobs=3"}, func(_ context.Context, e *action.Env) error {
		got := []any{e.Text("plan"), e.Bool("keep-going"), e.Int("jobs"), e.Text("on-cache-error"), e.List("tags"), e.Duration("timeout")}
		want := []any{"from-flag", false, 3, "build", []string{"a", "b ,c"}, 10 * time.Minute}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("inputs differ (-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestAllBadInputsAreReportedTogether(t *testing.T) {
	env := map[string]string{"INPUT_JOBS": "many", "INPUT_TIMEOUT": "-3s"}
	got := start(t, env, []string{"--on-cache-error", "panic", "--on-cache-err", "x", "--out", t.TempDir(), "stray"}, func(context.Context, *action.Env) error {
		t.Error("run was called")
		return nil
	})
	if got.code != 2 || got.stdout != "" {
		t.Errorf("exit code %d, stdout %q", got.code, got.stdout)
	}
	for _, want := range []string{
		"try-it: error: input plan is required: the plan\n",
		"try-it: error: input jobs is \"many\", not a whole number\n",
		"try-it: error: input timeout is -3s, not more than zero\n",
		"try-it: error: input on-cache-error is \"panic\", not one of fail, build\n",
		"try-it: error: unknown flag --on-cache-err, did you mean --on-cache-error?\n",
		"try-it: error: unexpected argument \"stray\"\n",
		"a folder, not a file\n",
		"try-it: hint: see try-it --help",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("stderr lacks %q:\n%s", want, got.stderr)
		}
	}
}

func TestOutputsOutsideARunner(t *testing.T) {
	got := start(t, map[string]string{"INPUT_PLAN": "p"}, nil, func(_ context.Context, e *action.Env) error {
		e.Infof("looked at %d images", 2)
		e.Mask("secret")
		defer e.Group("a group")()
		return e.SetOutputJSON("images", []string{"api", "<web>"})
	})
	if want := "images=[\"api\",\"\\u003cweb\\u003e\"]\n"; got.stdout != want || got.code != 0 {
		t.Errorf("stdout %q, want %q; code %d", got.stdout, want, got.code)
	}
	if want := "looked at 2 images\na group\n"; got.stderr != want {
		t.Errorf("stderr %q, want %q", got.stderr, want)
	}
}

// parseOutputs reads a runner's output file by the rules of act's parse_env_file.go, which GitHub's runner shares.
func parseOutputs(t *testing.T, text string) map[string]string {
	t.Helper()
	values := map[string]string{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		equals, heredoc := strings.Index(lines[i], "="), strings.Index(lines[i], "<<")
		switch {
		case lines[i] == "":
		case equals >= 0 && (heredoc < 0 || equals < heredoc):
			values[lines[i][:equals]] = lines[i][equals+1:]
		case heredoc >= 0:
			name, delimiter := lines[i][:heredoc], lines[i][heredoc+2:]
			var value []string
			for i++; i < len(lines) && lines[i] != delimiter; i++ {
				value = append(value, lines[i])
			}
			values[name] = strings.Join(value, "\n")
		default:
			t.Errorf("line %q is no output", lines[i])
		}
	}
	return values
}

func TestAnOutputCannotSetAnother(t *testing.T) {
	attack := "x\n_GitHubActionsFileCommandDelimeter_\nowned=yes\nowned<<_GitHubActionsFileCommandDelimeter_\nyes"

	sdkEnv := runnerEnv(t)
	sdk := githubactions.New(githubactions.WithWriter(io.Discard), githubactions.WithGetenv(func(k string) string { return sdkEnv[k] }))
	sdk.SetOutput("images", attack)
	text, _ := os.ReadFile(sdkEnv["GITHUB_OUTPUT"])
	if parseOutputs(t, string(text))["owned"] != "yes" {
		t.Fatal("the SDK withstands the attack: this test proves nothing")
	}

	got := start(t, runnerEnv(t), nil, func(_ context.Context, e *action.Env) error { return e.SetOutput("images", attack) })
	want := map[string]string{"images": attack}
	if diff := cmp.Diff(want, parseOutputs(t, got.output)); diff != "" {
		t.Errorf("outputs differ (-want +got):\n%s", diff)
	}
}

func TestAResultIsAddedToTheReport(t *testing.T) {
	env := runnerEnv(t)
	path := filepath.Join(t.TempDir(), "a", "report.html")
	env["INPUT_REPORT"], env["GITHUB_REPOSITORY"] = path, "team/shop"
	start(t, env, nil, func(_ context.Context, e *action.Env) error {
		_, err := e.WriteResult(&handoff.Plan{Images: []handoff.PlannedImage{{Name: "api", Reason: "no cache has it"}}})
		return err
	})
	if page, err := os.ReadFile(path); err != nil || !strings.Contains(string(page), "<h1>team/shop</h1>") || !strings.Contains(string(page), "no cache has it") {
		t.Errorf("%v: %s", err, page)
	}

	// Somebody else's file is kept, and the step is not the worse for it.
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := start(t, env, nil, func(_ context.Context, e *action.Env) error {
		_, err := e.WriteResult(&handoff.Plan{})
		return err
	})
	if page, _ := os.ReadFile(path); string(page) != "mine" || got.code != 0 || !strings.Contains(got.stdout, "is no report of flakeship") {
		t.Errorf("exit %d, %q, the file is %q", got.code, got.stdout, page)
	}
}

// A runner with a limit of 64 KiB a line would lose a long output and those after it.
func TestALongDocumentIsPackedOrLeftOutAndTheOthersAreKept(t *testing.T) {
	for _, c := range []struct {
		images int
		given  bool
	}{{10, true}, {400, true}, {4000, false}} {
		got := start(t, runnerEnv(t), nil, func(_ context.Context, e *action.Env) error {
			p := &handoff.Plan{}
			for range c.images {
				p.Images = append(p.Images, handoff.PlannedImage{Name: "an-image-with-a-name", Reason: "no cache has it", Tag: rand.Text(), DrvPath: "/nix/store/" + rand.Text()})
			}
			_, err := e.WriteResult(p)
			return errors.Join(err, e.SetOutput("images", "[]"))
		})
		values := parseOutputs(t, got.output)
		if _, there := values["plan-json"]; there != c.given || values["images"] != "[]" {
			t.Errorf("%d images: outputs %.200q", c.images, values)
		}
		forms := []string{values["plan"]}
		if c.given {
			forms = append(forms, values["plan-json"])
		}
		for _, form := range forms {
			var p handoff.Plan
			if err := handoff.Load(form, &p); err != nil || len(p.Images) != c.images {
				t.Errorf("%d images: the plan given as %.20q has %d: %v", c.images, form, len(p.Images), err)
			}
		}
		for line := range strings.Lines(got.output) {
			if len(line) > 60<<10 {
				t.Errorf("%d images: a line of %d bytes", c.images, len(line))
			}
		}
	}
}

func TestForeignTextIssuesNoCommand(t *testing.T) {
	hostile := "::set-env name=X::v\n  ::add-path::/evil\n##[set-env name=X]v\nfine ##[group]x\n\x1b[31mred\r\n::stop-commands::mine\nlast, unfinished"
	got := start(t, runnerEnv(t), nil, func(_ context.Context, e *action.Env) error {
		w := e.Foreign("nix| ")
		fmt.Fprint(w, hostile[:30])
		e.Infof("attribute %s", "a\n::error::from a name")
		fmt.Fprint(w, hostile[30:])
		w.Close()
		defer e.Group("::warning::group")()
		return nil
	})
	var token string
	for line := range strings.Lines(got.stdout) {
		line = strings.TrimRight(line, "\n")
		if rest, ok := strings.CutPrefix(line, "::stop-commands::"); ok {
			if rest == token || len(rest) < 20 {
				t.Errorf("token %q is short or was used before", rest)
			}
			token = rest
			continue
		}
		if line == "::"+token+"::" || line == "::group::: :warning::group" || line == "::endgroup::" {
			continue
		}
		if strings.HasPrefix(strings.TrimSpace(line), "::") || strings.Contains(line, "##[") || strings.ContainsRune(line, '\x1b') {
			t.Errorf("raw line %q", line)
		}
		if strings.Contains(line, "set-env") && !strings.HasPrefix(line, "nix| ") {
			t.Errorf("line without its prefix: %q", line)
		}
	}
	if token == "" || !strings.Contains(got.stdout, "nix| last, unfinished\n") {
		t.Errorf("log:\n%s", got.stdout)
	}
}

func TestSecretsAreMaskedBeforeAnythingElse(t *testing.T) {
	env := runnerEnv(t)
	env["INPUT_TOKEN"] = "line one\nline two"
	got := start(t, env, nil, func(_ context.Context, e *action.Env) error { e.Infof("hello"); return nil })
	if want := "::add-mask::line one\n::add-mask::line two\nhello\n"; got.stdout != want {
		t.Errorf("log %q, want %q", got.stdout, want)
	}
}

func TestExitCodesAndErrorLines(t *testing.T) {
	failure := action.Fail(action.Denied, fmt.Errorf("push app: 401\nUNAUTHORIZED"), "give a token that may write to %s", "app")
	failure.Detail = "first\n::error::second\n"
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		args []string
		err  error
		code int
		want string
	}{
		{"a failure", t.Context(), nil, failure, 3, "  | first\n  | : :error::second\ntry-it: error: push app: 401; UNAUTHORIZED\ntry-it: hint: give a token that may write to app\n"},
		{"two of them", t.Context(), nil, errors.Join(errors.New("a"), failure), 1, "try-it: error: a\ntry-it: hint: run it again with log-level: debug to see each step\n  | first\n"},
		{"a wrapped one", t.Context(), nil, fmt.Errorf("outer: %w", failure), 3, "try-it: hint: give a token"},
		{"cancelled", ended, nil, context.Canceled, 130, "try-it: error: cancelled: context canceled\ntry-it: hint: "},
		{"timed out", t.Context(), []string{"--timeout", "1ms"}, context.DeadlineExceeded, 6, "try-it: error: timed out after 1ms: context deadline exceeded\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := startContext(c.ctx, map[string]string{"INPUT_PLAN": "p"}, c.args, func(ctx context.Context, e *action.Env) error {
				if c.code == 6 {
					<-ctx.Done()
				}
				return c.err
			})
			if got.code != c.code || !strings.Contains(got.stderr, c.want) {
				t.Errorf("code %d, want %d; stderr %q lacks %q", got.code, c.code, got.stderr, c.want)
			}
		})
	}
}

func TestOnlyGitHubGetsAnAnnotation(t *testing.T) {
	fail := func(context.Context, *action.Env) error { return errors.New("broken 100%") }
	onGitHub, onGitea := runnerEnv(t), runnerEnv(t)
	onGitea["GITEA_ACTIONS"] = "true"
	if got := start(t, onGitHub, nil, fail).stdout; !strings.Contains(got, "\n::error::broken 100%25\n") {
		t.Errorf("GitHub: %q", got)
	}
	if got := start(t, onGitea, nil, fail).stdout; strings.Contains(got, "::error::") || !strings.Contains(got, "try-it: error: broken 100%\n") {
		t.Errorf("Gitea: %q", got)
	}
}

func TestAnOutputFileThatCannotBeWrittenStopsBeforeTheWork(t *testing.T) {
	env := runnerEnv(t)
	env["GITHUB_OUTPUT"] = filepath.Join(t.TempDir(), "no", "such", "folder")
	got := start(t, env, nil, func(context.Context, *action.Env) error { t.Error("run was called"); return nil })
	if got.code != 2 || !strings.Contains(got.stdout, "the runner's output file cannot be written") {
		t.Errorf("code %d, log %q", got.code, got.stdout)
	}
}

func TestDocuments(t *testing.T) {
	dir := t.TempDir()
	for _, part := range []string{"part-2", "part-1"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, part, "r.json"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	start(t, map[string]string{"INPUT_PLAN": "p", "INPUT_RESULTS": dir + "/none-*.json"}, nil, func(_ context.Context, e *action.Env) error {
		if got, err := e.Documents("results"); err == nil || !strings.Contains(err.Error(), "no file matches") {
			t.Errorf("Documents of a pattern that matches nothing: %q, %v", got, err)
		}
		return nil
	})
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"a.json", []string{"a.json"}},
		{"a.json\nb.json\n", []string{"a.json", "b.json"}},
		{"a.json, b.json", []string{"a.json", "b.json"}},
		{`{"a":"x,{"}`, []string{`{"a":"x,{"}`}},
		{dir + "/part-*/r.json\nb.json", []string{dir + "/part-1/r.json", dir + "/part-2/r.json", "b.json"}},
		{"{\n \"a\": 1\n}\n{\"b\":2}\nc.json", []string{"{\n \"a\": 1\n}", `{"b":2}`, "c.json"}},
	} {
		start(t, map[string]string{"INPUT_PLAN": "p", "INPUT_RESULTS": c.in}, nil, func(_ context.Context, e *action.Env) error {
			got, err := e.Documents("results")
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("Documents(%q): %v\n%s", c.in, err, diff)
			}
			return nil
		})
	}
}

func TestSummaryCellIsInert(t *testing.T) {
	if got, want := action.Cell("a|b\n<script> [x](y) `c` @all #1"), "a\\|b; &lt;script&gt; \\[x\\](y) 'c' &#64;all &#35;1"; got != want {
		t.Errorf("Cell = %q, want %q", got, want)
	}
}

func TestHelpNamesEveryInputAndOutput(t *testing.T) {
	got := start(t, nil, []string{"--help"}, nil)
	for _, in := range spec.All() {
		if !strings.Contains(got.stdout, "--"+in.Name) {
			t.Errorf("--help lacks %s", in.Name)
		}
	}
	if got.code != 0 || !strings.Contains(got.stdout, "plan-json") {
		t.Errorf("code %d:\n%s", got.code, got.stdout)
	}
}

func TestPreKeepsLinesAndNothingElse(t *testing.T) {
	got := action.Pre("a <b>\n\n</pre> & ::error::x\n\x1b[31m| `_`\n")
	want := "<pre>a &lt;b&gt;\n\n&lt;/pre&gt; &amp; ::error::x\n\\x1b[31m| `_`\n</pre>\n"
	if got != want {
		t.Errorf("Pre = %q, want %q", got, want)
	}
}
