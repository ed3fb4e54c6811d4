// Package cmd_test holds the four binaries to what they may link: small programs start fast, and a step that cannot reach
// another's code cannot depend on it.
package cmd_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/flakeship/flakeship/"

func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

func TestBinariesLinkOnlyTheirOwnStep(t *testing.T) {
	for name, never := range map[string][]string{
		"nix-cache-check":  {"k8s.io/", module + "internal/push", module + "internal/image", "github.com/google/go-containerregistry/pkg/v1/mutate", "testing"},
		"nix-build-images": {"k8s.io/", "github.com/google/go-containerregistry/pkg/v1/remote", "github.com/google/go-containerregistry/pkg/v1/mutate", module + "internal/push", "testing"},
		"push-images":      {"k8s.io/", module + "internal/nix", module + "internal/substituter", "testing"},
		"deploy-manifests": {module + "internal/nix", module + "internal/push", module + "internal/image", "testing"},
	} {
		for _, dep := range deps(t, module+"cmd/"+name) {
			if i := slices.IndexFunc(never, func(prefix string) bool {
				return dep == prefix || strings.HasPrefix(dep, prefix) && strings.ContainsAny(prefix, "/.")
			}); i >= 0 {
				t.Errorf("%s links %s", name, dep)
			}
		}
	}
}

func TestOnlyActionTalksToTheRunner(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		importer, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		for imported := range strings.FieldsSeq(imports) {
			if strings.HasSuffix(imported, "sethvargo/go-githubactions") && importer != module+"internal/action" {
				t.Errorf("%s imports %s", importer, imported)
			}
			// Steps take what they need as arguments; the process is the command's affair.
			if imported == module+"internal/action" && strings.HasPrefix(importer, module+"internal/") && importer != module+"internal/action/actionyml" {
				t.Errorf("%s imports %s", importer, imported)
			}
		}
	}
}

func TestHandoffIsALeaf(t *testing.T) {
	for _, dep := range deps(t, module+"internal/handoff") {
		host, _, _ := strings.Cut(dep, "/") // of a module; the standard library has none
		if strings.Contains(host, ".") && dep != module+"internal/handoff" {
			t.Errorf("internal/handoff imports %s", dep)
		}
	}
}
