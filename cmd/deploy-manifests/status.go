package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/transport"
)

// statusTimeout bounds one request for a commit status: the deploy does not wait for a forge that is down.
const statusTimeout = 10 * time.Second

// mostDescription is what GitHub takes of a status's description.
const mostDescription = 140

// commitStatus shows at the commit, on Gitea and GitHub alike, what became of its deploy: pending, success or failure. Without a
// token, or outside of a runner, it does nothing. It never fails the deploy.
func commitStatus(ctx context.Context, env *action.Env, in inputs, commit, state, description string) {
	api, repository, token := env.Getenv("GITHUB_API_URL"), env.Getenv("GITHUB_REPOSITORY"), env.Text("status-token")
	if token == "" {
		return
	}
	if api == "" || repository == "" || commit == "" {
		env.Warnf("no commit status: GITHUB_API_URL, GITHUB_REPOSITORY or the commit is not known")
		return
	}
	if runes := []rune(description); len(runes) > mostDescription {
		description = string(runes[:mostDescription-1]) + "…"
	}
	status := map[string]string{"state": state, "context": "deploy-manifests (" + in.name + ")", "description": description}
	if url := runURL(env); strings.HasPrefix(url, "http") {
		status["target_url"] = url
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer stop()
	if err := postStatus(ctx, strings.TrimRight(api, "/")+"/repos/"+repository+"/statuses/"+commit, token, status); err != nil {
		env.Warnf("no commit status: %v", err)
	}
}

func postStatus(ctx context.Context, url, token string, status map[string]string) error {
	body, err := json.Marshal(status)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "token "+token) // the one form that both know
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	// A status that arrives twice is the same status.
	client := &http.Client{Transport: transport.New(transport.Options{UserAgent: "flakeship/" + action.Version + " (deploy-manifests)", RetryPost: true, Timeout: statusTimeout})}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return fmt.Errorf("POST %s: %s: %s", url, response.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
