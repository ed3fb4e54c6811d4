// Package kstatus_test compares what internal/rollout makes of an object with what kstatus does, which Flux and Helm wait by.
package kstatus_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flakeship/flakeship/internal/rollout"
)

// agreed says which of our words mean the same as one of kstatus'. An object with nothing to reach is current to it.
var agreed = map[status.Status][]string{
	status.CurrentStatus:     {"ready", "nothing"},
	status.InProgressStatus:  {"progressing"},
	status.FailedStatus:      {"failed"},
	status.TerminatingStatus: {"failed"}, // what was applied and is being deleted will not run
	status.UnknownStatus:     nil,
}

// different are kstatus' own cases that we mean to see in another way, by the name of the constant, and why.
var different = map[string]string{
	"jobInProgress":     "a Job that runs is not done: what it does may be what the rest waits for",
	"podCompletedFail":  "a pod that failed did not succeed",
	"podUnschedulable":  "a node may be added, as autoscalers do",
	"podCrashLooping":   "one crash is forgiven: containers are counted and timed by pod, not judged in one look",
	"rsReplicaFailure":  "pods that may not be created are a failure, after ten seconds in which a quota may become free",
	"stsOK":             "a StatefulSet whose pods are not of the new version has not rolled out; its controller always writes updatedReplicas",
	"rsLessReady":       "what is available is ready: no controller writes such numbers",
	"dsLessReady":       "what is available is ready: no controller writes such numbers",
	"dsBadStatus":       "a controller that has seen the generation has written the number of nodes, be it zero",
	"depNotAvailable":   "the numbers tell the same as the condition, and are written with it",
	"depNotProgressing": "all pods are new and available: how long it took is past",
	"pdbNotObserved":    "a PodDisruptionBudget is nothing to wait for",
	"serviceLBnok":      "the API server gives a Service its address when it is created",
}

// TestAgainstKstatus takes every object from kstatus' own tests.
func TestAgainstKstatus(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/fluxcd/cli-utils").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for name, text := range objects(t, filepath.Join(strings.TrimSpace(string(out)), "pkg/kstatus/status/status_compute_test.go")) {
		data, err := yaml.YAMLToJSON([]byte(strings.ReplaceAll(text, "%s", time.Now().Format(time.RFC3339)))) // one of them was made just now
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		o := &unstructured.Unstructured{}
		if err := utiljson.Unmarshal(data, &o.Object); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs, err := status.Compute(o)
		if err != nil { // an object that is none
			theirs = &status.Result{Status: status.UnknownStatus, Message: err.Error()}
		}
		ours, says, err := rollout.Judge(o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		seen[name] = true
		same := false
		for _, word := range agreed[theirs.Status] {
			same = same || word == ours
		}
		reason, meant := different[name]
		switch {
		case !same && !meant:
			t.Errorf("%s: kstatus says %s (%s), we say %s (%s)\n%s", name, theirs.Status, theirs.Message, ours, says, text)
		case same && meant:
			t.Errorf("%s: is no difference any more: %s (%s)", name, ours, reason)
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d cases were found: the file has changed its form", len(seen))
	}
	for name := range different {
		if !seen[name] {
			t.Errorf("%s is no case of kstatus'", name)
		}
	}
	t.Logf("%d cases", len(seen))
}

// objects are the constants and variables of a test file that hold a Kubernetes object.
func objects(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(text, "apiVersion:") {
				all[spec.Names[0].Name] = text
			}
		}
		return true
	})
	return all
}
