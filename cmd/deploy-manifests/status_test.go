package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/action"
)

// TestCommitStatus asks a forge that answers as both of them do: 201 for what it takes.
func TestCommitStatus(t *testing.T) {
	commit := strings.Repeat("c", 40)
	for name, tt := range map[string]struct {
		status      int // 0: the forge does not answer at all
		token       string
		gitea       string
		description string
		asked       int
		warns       string
		target      string
	}{
		"taken by GitHub":    {status: 201, token: "s3cret-token", description: "2 created", asked: 1, target: "https://forge.test/team/shop/actions/runs/77"},
		"taken by Gitea":     {status: 201, token: "s3cret-token", gitea: "true", description: strings.Repeat("é", 200), asked: 1, target: "https://forge.test/team/shop/actions/runs/7"},
		"no token":           {status: 201},
		"refused":            {status: 403, token: "s3cret-token", description: "x", asked: 1, warns: "warning: no commit status: POST http://"},
		"down":               {token: "s3cret-token", description: "x", warns: "warning: no commit status: "},
		"nothing to say who": {status: 201, token: "s3cret-token", gitea: "unset", warns: "GITHUB_API_URL, GITHUB_REPOSITORY or the commit is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			var bodies []map[string]string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var body map[string]string
				json.NewDecoder(r.Body).Decode(&body)
				if r.Method != "POST" || r.URL.Path != "/api/v1/repos/team/shop/statuses/"+commit || r.Header.Get("Authorization") != "token s3cret-token" {
					t.Errorf("%s %s, %v", r.Method, r.URL, r.Header)
				}
				bodies = append(bodies, body)
				w.WriteHeader(tt.status)
			}))
			defer server.Close()
			if tt.status == 0 {
				server.Close()
			}
			environ := map[string]string{"GITHUB_SERVER_URL": "https://forge.test", "GITHUB_REPOSITORY": "team/shop", "GITHUB_RUN_ID": "77", "GITHUB_RUN_NUMBER": "7",
				"GITHUB_API_URL": server.URL + "/api/v1", "GITEA_ACTIONS": tt.gitea, "INPUT_STATUS_TOKEN": tt.token, "INPUT_MANIFESTS": "x"}
			if tt.gitea == "unset" {
				environ["GITHUB_API_URL"] = ""
			}
			var log bytes.Buffer
			process := action.Process{Getenv: func(name string) string { return environ[name] }, Stdout: &log, Stderr: &log}
			if code := action.Main(t.Context(), process, spec, func(ctx context.Context, env *action.Env) error {
				commitStatus(ctx, env, inputs{name: "shop"}, commit, "success", tt.description)
				return nil
			}); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if len(bodies) != tt.asked || !strings.Contains(log.String(), tt.warns) || tt.warns == "" && log.Len() > 0 || strings.Contains(log.String(), "s3cret-token") {
				t.Errorf("%d requests, log:\n%s", len(bodies), &log)
			}
			if tt.target == "" {
				return
			}
			if b := bodies[0]; b["state"] != "success" || b["context"] != "deploy-manifests (shop)" || len([]rune(b["description"])) > 140 || b["target_url"] != tt.target {
				t.Errorf("%v", b)
			}
		})
	}
}
