package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/handoff"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"deploy-manifests": main}) }

// TestStories runs testdata/*.txtar. They are of what happens before a cluster takes part; e2e/deploy goes on from there.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, ".home"))
			env.Setenv("GITHUB_REPOSITORY", "team/shop")
			env.Setenv("RUNNER_TEMP", filepath.Join(env.WorkDir, "runner-temp"))
			return os.MkdirAll(filepath.Join(env.WorkDir, "runner-temp"), 0o755)
		},
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"seal":   seal,
			"api":    api,
			"result": result,
		},
	})
}

// exits CODE PROGRAM ARGUMENT...: the program ends with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// seal FILE: makes a hand-over document of a push result that was written by hand.
func seal(ts *testscript.TestScript, neg bool, args []string) {
	var push handoff.PushResult
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &push))
	_, err := handoff.WriteFile(ts.MkAbs(args[0]), &push)
	ts.Check(err)
}

// api NAME STATUS: an API server that answers everything with this status; its URL is in the variable NAME. Status 200 is a
// web page.
func api(ts *testscript.TestScript, neg bool, args []string) {
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status == http.StatusOK {
			fmt.Fprint(w, "<html>Welcome</html>")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":%q,"code":%d}`,
			map[int]string{401: "Unauthorized", 403: "Forbidden", 500: "InternalError"}[status], status)
	}))
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
}

// result FILE OBJECT=ACTION...: a deploy result has these objects, in this order, and is what its seal says.
func result(ts *testscript.TestScript, neg bool, args []string) {
	var deployed handoff.DeployResult
	ts.Check(handoff.Load(ts.MkAbs(args[0]), &deployed))
	if len(deployed.Objects) != len(args)-1 {
		ts.Fatalf("%d objects, want %d", len(deployed.Objects), len(args)-1)
	}
	for i, want := range args[1:] {
		if got := deployed.Objects[i].ID() + "=" + string(deployed.Objects[i].Action); got != want {
			ts.Fatalf("object %d is %s, want %s", i, got, want)
		}
	}
}
