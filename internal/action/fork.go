package action

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Fork names the repository a pull request comes from, when that is another than the one the run is of; otherwise it is empty.
// Forges give the runs of such a pull request no secrets, so that what would need one is left out there, see LeaveOut. Anywhere
// else a missing secret is the error it is.
//
// pull_request_target is not among them: it has the secrets.
func (e *Env) Fork() string {
	if name := e.Getenv("GITHUB_EVENT_NAME"); !strings.HasPrefix(name, "pull_request") || name == "pull_request_target" {
		return ""
	}
	f, err := os.Open(e.Getenv("GITHUB_EVENT_PATH"))
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 32 << 20 // GitHub's webhooks end at 25 MB
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return forkOf(text)
}

// forkOf reads an event. GitHub, Gitea and Forgejo send the same fields. A repository that is a fork itself may have pull requests
// between its own branches, so what counts is whether the two sides are one repository; that of the head is null when it was deleted.
func forkOf(event []byte) string {
	type repository struct {
		ID       int64  `json:"id"`
		FullName string `json:"full_name"`
	}
	type side struct {
		Repo *repository `json:"repo"`
	}
	var e struct {
		PullRequest *struct {
			Head side `json:"head"`
			Base side `json:"base"`
		} `json:"pull_request"`
	}
	if json.Unmarshal(event, &e) != nil || e.PullRequest == nil || e.PullRequest.Base.Repo == nil {
		return ""
	}
	head, base := e.PullRequest.Head.Repo, e.PullRequest.Base.Repo
	switch {
	case head == nil:
		return "a repository that was deleted"
	case head.ID != 0 && base.ID != 0 && head.ID == base.ID, head.ID == base.ID && head.FullName == base.FullName:
		return ""
	}
	return cmp.Or(head.FullName, "another repository")
}

// LeaveOut says that something is left out, and why, in a run of a pull request from a fork. The first time in a job a notice says
// what that is about; all four steps share it.
func (e *Env) LeaveOut(what string, args ...any) {
	if e.firstNotice() {
		text := fmt.Sprintf("this pull request comes from %s, and runs of forks get no secrets: images are checked and built, and what needs credentials is left out. "+
			"A maintainer who has read it runs the rest from a branch of this repository; see docs/guides/pull-requests.md of flakeship", e.Fork())
		e.print(e.spec.Name + ": notice: " + text)
		if e.annotates() {
			e.command("notice", Clean(text))
		}
	}
	e.print("left out: " + fmt.Sprintf(what, args...))
}

// firstNotice says whether no step of the job has given the notice yet.
func (e *Env) firstNotice() bool {
	path := filepath.Join(e.tempDir(), "flakeship", fmt.Sprintf("fork-%s-%s", name(e.Getenv("GITHUB_RUN_ID")), name(e.Getenv("GITHUB_RUN_ATTEMPT"))))
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return true
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		f.Close()
	}
	return !errors.Is(err, fs.ErrExist)
}

// name is text as a part of a file's name.
func name(text string) string { return filepath.Base("0" + text) }
