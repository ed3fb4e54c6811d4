// Package docs_test holds what the documentation says against what the repository has.
package docs_test

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"sigs.k8s.io/yaml"

	"github.com/flakeship/flakeship/internal/action/actionyml"
)

// pages are all Markdown files that git knows, by their path from the root of the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("git", "-C", "..", "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for path := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		found[path] = string(text)
	}
	if len(found) < 10 {
		t.Fatalf("only %d pages", len(found))
	}
	return found
}

var (
	fence   = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

func TestLinks(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			target, err := url.Parse(m[1])
			if err != nil || target.Scheme != "" {
				continue // elsewhere
			}
			path := page
			if target.Path != "" {
				path = filepath.Join(filepath.Dir(page), target.Path)
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if target.Fragment != "" && !slices.Contains(anchors(all[path]), target.Fragment) {
				t.Errorf("%s links to %s: the page has no such heading", page, m[1])
			}
		}
	}
}

// anchors are the fragments that forges give to a page's headings.
func anchors(text string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, m[1]))
	}
	return names
}

// A make target that the documentation names is one of the Makefile's.
func TestCommands(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("(?m)(?:^    |`)make ([a-z-]+)")
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s says make %s, which is no target", page, m[1])
			}
		}
	}
}

// YAML parses; a step that uses one of our actions gives it inputs it has.
func TestYAML(t *testing.T) {
	type step struct {
		Uses string         `json:"uses"`
		With map[string]any `json:"with"`
	}
	used := 0
	for page, text := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] != "yaml" {
				continue
			}
			var document any
			if err := yaml.Unmarshal([]byte(m[2]), &document); err != nil {
				t.Errorf("%s: %v in\n%s", page, err, m[2])
			}
			var steps []step
			var workflow struct {
				Jobs map[string]struct {
					Steps []step `json:"steps"`
				} `json:"jobs"`
			}
			switch document.(type) {
			case []any:
				_ = yaml.Unmarshal([]byte(m[2]), &steps) // no list of steps: nothing to check
			case map[string]any:
				_ = yaml.Unmarshal([]byte(m[2]), &workflow)
				for _, job := range workflow.Jobs {
					steps = append(steps, job.Steps...)
				}
			}
			for _, s := range steps {
				action, ours := strings.CutPrefix(s.Uses, "flakeship/flakeship")
				if !ours {
					continue
				}
				used++
				folder, _, _ := strings.Cut(action, "@")
				file, err := os.ReadFile(filepath.Join("..", folder, "action.yml"))
				if err != nil {
					t.Errorf("%s uses %s: %v", page, s.Uses, err)
					continue
				}
				parsed, err := actionyml.Parse(file)
				if err != nil {
					t.Fatal(err)
				}
				for input := range s.With {
					if _, ok := parsed.Inputs[input]; !ok {
						t.Errorf("%s gives %s the input %s, which it does not have", page, s.Uses, input)
					}
				}
			}
		}
	}
	if used < 3 {
		t.Errorf("only %d steps of ours", used)
	}
}

// The guide shows the workflows that the end-to-end tests run.
func TestSeveralRunnersIsWhatIsTested(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("guides", "several-runners.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shards", "matrix"} {
		tested, err := os.ReadFile(filepath.Join("..", "e2e", "pipeline", "testdata", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		_, workflow, _ := strings.Cut(string(tested), "\n") // without the comment at its head
		if !strings.Contains(strings.ReplaceAll(string(guide), "@v0.1.0", "@v1"), "```yaml\n"+workflow+"```\n") {
			t.Errorf("guides/several-runners.md shows another workflow than e2e/pipeline/testdata/%s.yaml", name)
		}
	}
}

// Each defence of the threat model is shown by something that exists.
func TestThreatModelNamesItsTests(t *testing.T) {
	text, err := os.ReadFile("threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	stories := map[string]bool{}
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(path, "_test.go"):
			text, err := os.ReadFile(path)
			code.Write(text)
			return err
		case strings.HasSuffix(path, ".txtar"):
			stories[filepath.Base(path)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| attack") {
			continue
		}
		rows++
		names := strings.Split(strings.TrimSuffix(cells[2], " |"), ", ")
		for _, name := range names {
			if !stories[name] && !strings.Contains(code.String(), "\nfunc "+name+"(") {
				t.Errorf("%s: there is no %q", cells[0], name)
			}
		}
	}
	if rows < 10 {
		t.Errorf("only %d rows were read", rows)
	}
}
