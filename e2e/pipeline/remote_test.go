package pipeline_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/flakeship/flakeship/e2e/gitserver"
	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
)

// testFromGitServer ships with a release as the Gitea runner gets it in production: cloned over http, by tag and then by the
// full hash of the release commit. Meanwhile it looks for secrets wherever other users of the machine could.
func testFromGitServer(t *testing.T, p *pipeline.Pipeline) {
	root := t.TempDir()
	commit, err := p.Release(t.Context(), root, "v1")
	if err != nil {
		t.Fatal(err)
	}
	server, err := gitserver.Start(root)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p.ActionsURL = server.URL
	defer func() { p.ActionsURL = "" }()
	workflow, err := os.ReadFile(filepath.Join(p.Repo, p.Workflow))
	if err != nil {
		t.Fatal(err)
	}

	planted := secrets(t, p)
	arguments := watchArguments(t, p.Dir, planted)
	defer arguments()
	for _, ref := range []string{"v1", commit} {
		pinned := strings.ReplaceAll(string(workflow), "flakeship/flakeship@v1", "flakeship/flakeship@"+ref)
		if err := p.Write(p.Workflow, pinned+"# "+ref+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := p.Edit("services/web/www/index.html", "shop", "shop "+ref[:2]); err != nil {
			t.Fatal(err)
		}
		run := shipOnce(t, p, runner.Gitea)
		if c := run.Counts(); c.Built != 1 || c.Pushed != 1 || c.Changed != 1 {
			t.Errorf("@%s: %+v", ref, c)
		}
		checkChain(t, run)
		checkSecrets(t, p, run)
		checkFiles(t, filepath.Dir(run.Log), planted)
	}
	if seen := arguments(); seen == 0 {
		t.Error("no process was seen: the test looks in the wrong place")
	}
	if err := p.Write(p.Workflow, string(workflow)); err != nil {
		t.Fatal(err)
	}
}

// watchArguments reads the arguments of every process that a job in dir has started, again and again, until the returned function
// is called, which says how many command lines were seen.
func watchArguments(t *testing.T, dir string, planted []string) (stop func() int) {
	seen := map[string]bool{}
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is a good one
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil || seen[string(text)] {
					continue // it has ended, or is known
				}
				environment, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
				if err != nil || !bytes.Contains(environment, []byte("HOME="+dir)) {
					continue
				}
				seen[string(text)] = true
				for _, secret := range planted {
					if bytes.Contains(text, []byte(secret)) {
						t.Errorf("a process has a secret among its arguments: %q", strings.ReplaceAll(string(text), secret, "SECRET"))
					}
				}
			}
			select {
			case <-end:
				return
			default:
			}
		}
	})
	return sync.OnceValue(func() int {
		close(end)
		done.Wait()
		return len(seen)
	})
}

// checkFiles looks for secrets in all that a run has left on the runner.
func checkFiles(t *testing.T, dir string, planted []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, secret := range planted {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds the secret %.12s…", path, secret)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files < 10 {
		t.Errorf("only %d files in %s", files, dir)
	}
}
