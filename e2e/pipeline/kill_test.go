package pipeline_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flakeship/flakeship/e2e/env/traffic"
	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/internal/handoff"
)

// testKilledPush kills a push to new repositories after its first blob. No
// manifest may name a blob that is not there, and the next push completes.
func testKilledPush(t *testing.T, p *pipeline.Pipeline, shipped *pipeline.Run) {
	dir := t.TempDir()
	result := filepath.Join(dir, "build-result.json")
	if _, err := handoff.WriteFile(result, shipped.Build); err != nil {
		t.Fatal(err)
	}
	restoreStore(t, p, shipped.Build)
	registry := p.Env.Registry.Host + "/killed"
	args := []string{"--build-result", result, "--registry", registry, "--jobs", "1", "--out", filepath.Join(dir, "push-result.json")}

	if _, err := p.Env.Registry.Traffic(); err != nil {
		t.Fatal(err)
	}
	push := p.Tool(t.Context(), "push-images", args...)
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	blobs := 0
	waitFor(t, "the first blob", func() (bool, error) {
		requests, err := p.Env.Registry.Traffic()
		blobs += traffic.Sum(requests).Blobs
		return blobs > 0, err
	})
	push.Process.Kill()
	if err := push.Wait(); err == nil {
		t.Fatal("the push was over before it was killed: this proves nothing")
	}

	checkManifests(t, p, "killed")
	run(t, p.Tool(t.Context(), "push-images", args...))
	if n := checkManifests(t, p, "killed"); n != len(images) {
		t.Errorf("%d repositories after the second push, want %d", n, len(images))
	}
}

// restoreStore builds again what a fresh runner's empty store has lost.
func restoreStore(t *testing.T, p *pipeline.Pipeline, built *handoff.BuildResult) {
	t.Helper()
	for _, image := range built.Images {
		if _, err := os.Lstat(p.Nix.File(image.OutPath)); err == nil {
			continue
		}
		cmd := p.Nix.Command(t.Context(), "build", "--no-link", p.Repo+"#"+image.Name)
		run(t, cmd)
		if _, err := os.Lstat(p.Nix.File(image.OutPath)); err != nil {
			// The source has changed since: the cache still has the older output.
			run(t, p.Nix.Command(t.Context(), "copy", "--no-check-sigs", "--from", p.Env.Cache.URL, image.OutPath))
		}
	}
}

// checkManifests reads every tagged manifest below prefix and asks for each
// blob it names. It returns the number of repositories with a tag.
func checkManifests(t *testing.T, p *pipeline.Pipeline, prefix string) int {
	t.Helper()
	tagged := 0
	for _, image := range images {
		repository := "/v2/" + prefix + "/" + image
		var list struct{ Tags []string }
		if status, body := ask(t, p, "GET", repository+"/tags/list"); status == http.StatusOK {
			if err := json.Unmarshal(body, &list); err != nil {
				t.Fatal(err)
			}
		}
		if len(list.Tags) > 0 {
			tagged++
		}
		for _, tag := range list.Tags {
			status, body := ask(t, p, "GET", repository+"/manifests/"+tag)
			var manifest struct {
				Config struct{ Digest string }
				Layers []struct{ Digest string }
			}
			if err := json.Unmarshal(body, &manifest); err != nil || status != http.StatusOK {
				t.Errorf("manifest %s:%s: %d %v", repository, tag, status, err)
				continue
			}
			digests := []string{manifest.Config.Digest}
			for _, layer := range manifest.Layers {
				digests = append(digests, layer.Digest)
			}
			for _, digest := range digests {
				if status, _ := ask(t, p, "HEAD", repository+"/blobs/"+digest); status != http.StatusOK {
					t.Errorf("%s:%s names blob %s, which is not there: %d", repository, tag, digest, status)
				}
			}
		}
	}
	return tagged
}

func ask(t *testing.T, p *pipeline.Pipeline, method, path string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.Env.Registry.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("shop-ci", "a-password-of-the-registry")
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// testKilledDeploy kills a deploy to a new namespace after its first objects;
// the next deploy completes the set.
func testKilledDeploy(t *testing.T, p *pipeline.Pipeline, shipped *pipeline.Run) {
	dir := t.TempDir()
	manifests := filepath.Join(dir, "deploy")
	if err := os.CopyFS(manifests, os.DirFS(filepath.Join(p.Repo, "deploy"))); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(manifests)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(manifests, f.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		moved := strings.NewReplacer("namespace: shop\n", "namespace: killed\n", "name: shop\n", "name: killed\n", "shop.example.org", "killed.example.org").Replace(string(text))
		if err := os.WriteFile(path, []byte(moved), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	result := filepath.Join(dir, "push-result.json")
	if _, err := handoff.WriteFile(result, shipped.Push); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "deploy-result.json")
	args := []string{"--prune=false", "--manifests", manifests, "--push-result", result, "--kubeconfig", p.Env.Cluster.Kubeconfig, "--out", out}

	client, err := p.Env.Cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	deploy := p.Tool(t.Context(), "deploy-manifests", args...)
	var said strings.Builder
	deploy.Stderr = &said
	defer func() {
		if t.Failed() {
			deploy.Process.Kill() // it may have ended
			deploy.Wait()         // or been waited for
			t.Log(said.String())
		}
	}()
	if err := deploy.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first object in the new namespace", func() (bool, error) {
		accounts, err := client.CoreV1().ConfigMaps("killed").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, c := range accounts.Items {
			if c.Name != "kube-root-ca.crt" {
				return true, nil
			}
		}
		return false, nil
	})
	deploy.Process.Kill()
	if err := deploy.Wait(); err == nil {
		t.Fatal("the deploy was over before it was killed: this proves nothing")
	}

	run(t, p.Tool(t.Context(), "deploy-manifests", args...))
	var deployed handoff.DeployResult
	if err := handoff.Load(out, &deployed); err != nil {
		t.Fatal(err)
	}
	if len(deployed.Objects) != len(shipped.Deploy.Objects) {
		t.Errorf("%d objects, want %d", len(deployed.Objects), len(shipped.Deploy.Objects))
	}
	for _, object := range deployed.Objects {
		if object.Action == handoff.ActionFailed || object.Rollout == handoff.RolloutFailed || object.Rollout == handoff.RolloutTimeout {
			t.Errorf("%s: %s, %s: %s", object.ID(), object.Action, object.Rollout, object.Message)
		}
	}
}

func waitFor(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		ok, err := done()
		if err != nil {
			t.Fatal(fmt.Errorf("wait for %s: %w", what, err))
		}
		if ok {
			return
		}
	}
	t.Fatalf("%s did not come within 30 s", what)
}
