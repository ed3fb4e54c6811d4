// Package task is what package runner tells the Gitea runner's process: the
// fields of a task that a Gitea server would send, and the folders to use.
package task

import "strings"

// Task is one run of one workflow.
type Task struct {
	Workflow   string            `json:"workflow"`   // path of the workflow file
	Job        string            `json:"job"`        // id of the one job to run; empty runs all
	Workspace  string            `json:"workspace"`  // folder that actions/checkout copies
	CacheDir   string            `json:"cacheDir"`   // folder for the job's temporary files
	ServerURL  string            `json:"serverURL"`  // the forge, as GITHUB_SERVER_URL
	Repository string            `json:"repository"` // owner/name
	Branch     string            `json:"branch"`
	Commit     string            `json:"commit"` // 40 hex digits
	Actor      string            `json:"actor"`
	EventName  string            `json:"eventName"`
	Event      map[string]any    `json:"event"`
	Env        map[string]string `json:"env"`
	Secrets    map[string]string `json:"secrets"`
	Vars       map[string]string `json:"vars"`
	Actions    map[string]string `json:"actions"`    // owner/name@ref to folder
	ActionsURL string            `json:"actionsURL"` // git server that actions are cloned from, in place of Actions

	ArtifactDir  string `json:"artifactDir"`  // folder of the artifact server; empty: there is none
	ArtifactPort string `json:"artifactPort"` // its port on loopback
}

// Owner is the first half of Repository.
func (t Task) Owner() string {
	owner, _, _ := strings.Cut(t.Repository, "/")
	return owner
}
