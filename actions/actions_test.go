// Package actions_test checks the files users name in `uses:`. Those of the single actions are checked against their
// binary's inputs and outputs in cmd/<name>; here are the root action and what all of them have to obey.
package actions_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/action/actionyml"
)

func stages(t *testing.T) []actionyml.Stage {
	stages := []actionyml.Stage{
		{ID: "check", Name: "nix-cache-check"},
		{ID: "build", Name: "nix-build-images", Wired: map[string]string{"plan": "steps.check.outputs.plan", "signed": "inputs.image-signing-key != ''"}},
		{ID: "push", Name: "push-images", If: "inputs.registry != '' || inputs.oci-layout != ''", Wired: map[string]string{"build-result": "steps.build.outputs.build-result"},
			Renamed: map[string]string{"signing-key": "image-signing-key"}}, // nix-build-images signs store paths with its own
		{ID: "deploy", Name: "deploy-manifests", If: "inputs.manifests != ''", Wired: map[string]string{"push-result": "steps.push.outputs.push-result"}},
	}
	for i := range stages {
		text, err := os.ReadFile(filepath.Join(stages[i].Name, "action.yml"))
		if err != nil {
			t.Fatal(err)
		}
		if stages[i].File, err = actionyml.Parse(text); err != nil {
			t.Fatal(err)
		}
		stages[i].Order = actionyml.Order(string(text))
	}
	return stages
}

func TestRootActionIsTheUnionOfTheFour(t *testing.T) {
	text := actionyml.RenderRoot("flakeship", "From a commit of a Nix monorepo to a running Kubernetes cluster: check, build, push, deploy.", stages(t))
	if _, err := actionyml.Parse([]byte(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	actionyml.Same(t, filepath.Join("..", "action.yml"), text)

	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := actionyml.Splice(string(readme), actionyml.RootTables(stages(t)))
	if err != nil {
		t.Fatal(err)
	}
	actionyml.Same(t, "README.md", want)
}

func TestEveryActionIsSafeToRun(t *testing.T) {
	files, err := filepath.Glob("*/action.yml")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join("..", "action.yml"))
	if len(files) != 5 {
		t.Fatalf("found %q, want four actions and the root", files)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := actionyml.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if f.Runs.Using != "composite" {
			t.Errorf("%s: using %q", path, f.Runs.Using)
		}
		mapped := map[string]bool{}
		for _, step := range f.Runs.Steps {
			if step.Shell != "bash" || step.Uses != "" || strings.Contains(step.Run, "${{") {
				t.Errorf("%s: step %s: shell %q, uses %q, run %q", path, step.ID, step.Shell, step.Uses, step.Run)
			}
			for name, value := range step.Env {
				if strings.Contains(name, "-") {
					t.Errorf("%s: variable %s would be lost in dash", path, name)
				}
				mapped[value] = true
			}
		}
		for name := range f.Inputs {
			if !mapped["${{ inputs."+name+" }}"] {
				t.Errorf("%s: input %s reaches no step", path, name)
			}
			of := name
			for _, stage := range stages(t) {
				for own, root := range stage.Renamed {
					if path == "../action.yml" && root == name {
						of = own
					}
				}
			}
			if got := action.EnvName(of); !strings.Contains(string(text), got+": ${{ inputs."+name+" }}") {
				t.Errorf("%s: input %s is not passed as %s", path, name, got)
			}
		}
	}
}
