package pipeline_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/internal/handoff"
)

// testPull pulls images of every family with skopeo, unpacks them with umoci
// and runs their entrypoints.
func testPull(t *testing.T, p *pipeline.Pipeline, push *handoff.PushResult) {
	for _, image := range push.Images {
		t.Run(image.Name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "flakeship-pull-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { pipeline.Remove(dir) })
			layout, bundle := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle")

			reference := "docker://" + image.Repository + "@" + image.Digest // skopeo takes no tag beside a digest
			pull := exec.Command("skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "--src-creds", "shop-ci:a-password-of-the-registry", reference, "oci:"+layout+":pulled")
			pull.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir) // it keeps a cache there
			run(t, pull)
			run(t, exec.Command("umoci", "unpack", "--rootless", "--image", layout+":pulled", bundle))

			text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			var config struct {
				Process struct{ Args, Env []string }
			}
			if err := json.Unmarshal(text, &config); err != nil {
				t.Fatal(err)
			}
			// A user namespace, so that chroot works without being root.
			args := append([]string{"--map-root-user", "chroot", filepath.Join(bundle, "rootfs"), config.Process.Args[0]}, "--check")
			cmd := exec.Command("unshare", args...)
			cmd.Env = config.Process.Env
			if got := run(t, cmd); strings.TrimSpace(got) != image.Name+": ok" {
				t.Errorf("%v --check printed %q", config.Process.Args, got)
			}
		})
	}
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return string(out)
}
