package audit

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fence  = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	pinned = regexp.MustCompile(`uses: *([^@\s]+)@([0-9a-f]{40}) *# *(v[0-9.]+)`)
)

// TestRepository audits the actions, the project's own workflows, and every workflow that people are told to copy.
func TestRepository(t *testing.T) {
	const root = "../../.."
	out, err := exec.Command("git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard", "*.yml", "*.yaml", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	actions, workflows, examples := 0, 0, 0
	versions := map[string]string{} // of each action and hash
	for path := range strings.FieldsSeq(string(out)) {
		content, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			continue // removed, and not yet committed
		} else if err != nil {
			t.Fatal(err)
		}
		o := Options{Example: true}
		texts := []string{string(content)}
		switch {
		case filepath.Base(path) == "action.yml":
			o.Example = false
			actions++
		case strings.HasPrefix(path, ".gitea/workflows/"), strings.HasPrefix(path, ".github/workflows/"):
			o.Example = false
			workflows++
		case strings.HasSuffix(path, ".md"):
			texts = nil
			for _, m := range fence.FindAllStringSubmatch(string(content), -1) {
				texts = append(texts, m[1])
			}
			examples += len(texts)
		default:
			examples++
		}
		for _, text := range texts {
			findings, err := Check([]byte(text), o)
			if err != nil {
				t.Logf("%s: not read: %v", path, err) // several documents of Kubernetes, say
			}
			for _, f := range findings {
				t.Errorf("%s:%v", path, f)
			}
			for _, m := range pinned.FindAllStringSubmatch(text, -1) {
				if before, ok := versions[m[1]+m[2]]; ok && before != m[3] {
					t.Errorf("%s: %s@%s is %s here and %s elsewhere", path, m[1], m[2], m[3], before)
				}
				versions[m[1]+m[2]] = m[3]
			}
		}
	}
	if actions != 5 || workflows < 4 || examples < 10 || len(versions) < 2 {
		t.Errorf("%d actions, %d workflows, %d examples, %d hashes: not all were looked at", actions, workflows, examples, len(versions))
	}
}
