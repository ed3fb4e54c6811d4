package deploy_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// diff runs mode: diff and returns the file's text.
func diff(t *testing.T, manifests string, args ...string) (log, text string) {
	t.Helper()
	cmd, out := command(t, manifests, append([]string{"--mode", "diff"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(cmd.Env, "RUNNER_TEMP="+filepath.Dir(out))
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for line := range strings.Lines(stdout.String()) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "diff-file="); ok {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return stderr.String() + stdout.String(), string(content)
		}
	}
	t.Fatalf("no diff-file:\n%s", stdout.String())
	return "", ""
}

// A diff says what would be created, changed and restarted, shows no secret, and writes nothing.
func TestDiff(t *testing.T) {
	ns := namespace(t)
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: " + ns + "}\nstringData: {password: %s, other: same-value}\n---\n"
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1")+fmt.Sprintf(configMap, "b", ns, "1")+deployment("web", ns, "web:1")+deployment("still", ns, "web:1")+fmt.Sprintf(secret, "hunter2222")).wants(t, 0)

	manifests := fmt.Sprintf(configMap, "a", ns, "uses hunter3333") + fmt.Sprintf(configMap, "b", ns, "1") + fmt.Sprintf(configMap, "c", ns, "1") + deployment("web", ns, "web:2") +
		deployment("still", ns, "web:1") + fmt.Sprintf(secret, "hunter3333") +
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + ns + "-new}\n---\n" + fmt.Sprintf(configMap, "later", ns+"-new", "1") +
		fmt.Sprintf(definition, ns+"-x", "") + fmt.Sprintf(widget, ns+"-x", "size: 1")
	requests(t)
	log, text := diff(t, strings.Replace(manifests, "namespace: "+ns+"-x}", "namespace: "+ns+"}", 1))
	for _, line := range requests(t) {
		if strings.HasPrefix(line, "patch ") && !strings.Contains(line, "dryRun=All") {
			t.Errorf("a write: %s", line)
		}
	}
	for _, want := range []string{
		"--- live/ConfigMap/" + ns + "/a\n+++ deploy/ConfigMap/" + ns + "/a\n", "-  a: \"1\"\n+  a: uses ***\n", "+++ deploy/ConfigMap/" + ns + "/c\n",
		"-      - image: web:1\n+      - image: web:2\n", "-  password: '*** (before)'\n+  password: '*** (after)'\n", "   other: '***'\n", "+++ deploy/Namespace/" + ns + "-new\n",
		"+++ deploy/ConfigMap/" + ns + "-new/later\n", "+++ deploy/Widget/" + ns + "/w\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the diff lacks %q:\n%s", want, text)
		}
	}
	for _, not := range []string{"hunter", "aHVudGVy", "managedFields", "resourceVersion", "ConfigMap/" + ns + "/b", "Deployment/" + ns + "/still"} {
		if strings.Contains(text, not) || strings.Contains(log, "hunter") {
			t.Errorf("the diff shows %q:\n%s", not, text)
		}
	}
	for _, want := range []string{"restarts    Deployment/" + ns + "/web\n", "ConfigMap/" + ns + "-new/later: not checked: namespace " + ns + "-new has to be there first",
		"diff: 5 created, 3 configured, 2 unchanged, in ", "changed=true"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if names := configMaps(t, ns); len(names) != 2 {
		t.Errorf("ConfigMaps: %v", names)
	}

	// Nothing to change: nothing to show. What the server does not take is an error here too.
	log, text = diff(t, fmt.Sprintf(configMap, "b", ns, "1"))
	if text != "" || !strings.Contains(log, "diff: 1 unchanged") || !strings.Contains(log, "changed=false") {
		t.Errorf("%q\n%s", text, log)
	}
	// What would be pruned is said, and stays.
	log, text = diff(t, fmt.Sprintf(configMap, "b", ns, "1"), withPrune)
	if text != "" || !strings.Contains(log, "pruned      ConfigMap/"+ns+"/a\n") || !strings.Contains(log, "pruned      Deployment/"+ns+"/web\n") || !strings.Contains(log, "changed=true") {
		t.Errorf("%q\n%s", text, log)
	}
	if names := configMaps(t, ns); len(names) != 2 {
		t.Errorf("ConfigMaps: %v", names)
	}
	cmd, _ := command(t, strings.Replace(deployment("web", ns, "web"), "spec:\n", "spec:\n  replica: 2\n", 1), "--mode", "diff")
	if out, err := cmd.CombinedOutput(); err == nil || err.(*exec.ExitError).ExitCode() != 2 || !strings.Contains(string(out), "nothing was applied") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What is applied is what was rendered: a second deploy, of the rendered files and without a push result, changes nothing.
func TestRenderThenApply(t *testing.T) {
	ns := namespace(t)
	manifests := deployment("api", ns, "api") + fmt.Sprintf(configMap, "a", ns, "runs flakeship:api")
	path := push(t, "1", "api")
	deploy(t, manifests, "--push-result", path).wants(t, 0)
	cmd, _ := command(t, manifests, "--push-result", path, "--mode", "render", "--out-dir", "rendered")
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH")} // no cluster
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rendered, err := os.ReadFile(filepath.Join(cmd.Dir, "rendered", "m.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	deploy(t, string(rendered)).wants(t, 0, "deployed: 2 unchanged")
}
