package pipeline_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
)

// testCancelled has the runner cancel a run that builds, the next one when it pushes, the next one when it waits for a rollout.
// Each gets further than the one before; the last one gets to the end.
func testCancelled(t *testing.T, p *pipeline.Pipeline, r runner.Runner) {
	edit := func(file, old, new string) {
		t.Helper()
		if err := p.Edit(file, old, new); err != nil {
			t.Fatal(err)
		}
	}
	note(t, p, "services/web/www")

	const quick = "config = listensOn 8080 (runs \"web\" ./web);"
	slow := strings.Replace(quick, "(runs", "({ Labels.slow = runCommand \"slow\" { } \"sleep 7531\"; } // runs", 1)
	edit("services/default.nix", quick, slow)
	checkCancelled(t, p, cancel(t, p, r, syscall.SIGINT, "", func() bool { return len(processes(t, "sleep\x007531")) > 0 }))
	if left := processes(t, "sleep\x007531"); len(left) > 0 {
		t.Errorf("the builder runs on: %q", left)
	}

	edit("services/default.nix", slow, quick)
	registry, uploading := holdUploads(t, p)
	pushing := cancel(t, p, r, syscall.SIGTERM, registry, uploading)
	checkCancelled(t, p, pushing)
	if pushing.Build == nil || pushing.Push != nil && pushing.Push.Complete {
		t.Errorf("cancelled while it pushed: %+v", pushing.Push)
	}
	checkManifests(t, p, "shop")

	const anywhere, nowhere = "    spec:\n      containers:", "    spec:\n      nodeSelector: {there-is: no-such-node}\n      containers:"
	edit("deploy/web.yaml", anywhere, nowhere)
	client, err := p.Env.Cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	deploying := cancel(t, p, r, syscall.SIGINT, "", func() bool {
		web, err := client.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && web.Spec.Template.Spec.NodeSelector != nil
	})
	checkCancelled(t, p, deploying)
	if deploying.Push == nil || !deploying.Push.Complete {
		t.Errorf("cancelled while it deployed: %+v", deploying.Push)
	}
	leases, err := client.CoordinationV1().Leases("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, lease := range leases.Items {
		if !strings.HasPrefix(lease.Name, "flakeship-") {
			continue
		}
		ours++
		if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
			t.Errorf("%s is held by %s", lease.Name, *holder)
		}
	}
	if ours == 0 {
		t.Error("there is no lease: the test looks for the wrong thing")
	}

	edit("deploy/web.yaml", nowhere, anywhere)
	last := shipOnce(t, p, r)
	if c := last.Counts(); c.Built != 0 || c.Pushed != 0 {
		t.Errorf("the run after the cancelled ones: %+v", c)
	}
	checkCluster(t, p, last.Push)
}

// cancel runs the workflow, with another registry when one is given, and has the runner cancel it when the time has come.
func cancel(t *testing.T, p *pipeline.Pipeline, r runner.Runner, s syscall.Signal, registry string, when func() bool) *pipeline.Run {
	t.Helper()
	cancel, over, came := make(chan syscall.Signal, 1), make(chan struct{}), false
	var watch sync.WaitGroup
	watch.Go(func() {
		for !when() {
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		cancel <- s
		came = true
	})
	run, err := p.ShipAs(t.Context(), r, func(j *runner.Job) {
		j.Cancel = cancel
		if registry != "" {
			j.Vars["REGISTRY"] = registry
		}
	})
	close(over)
	watch.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !came {
		t.Fatalf("the run was over before it was cancelled; log:\n%s", run.Result.Log)
	}
	return run
}

// checkCancelled checks that the run was cancelled and left nothing behind.
func checkCancelled(t *testing.T, p *pipeline.Pipeline, run *pipeline.Run) {
	t.Helper()
	if run.ExitCode == 0 || strings.Contains(run.Result.Log, "left running") {
		t.Errorf("exit code %d, log:\n%s", run.ExitCode, run.Result.Log)
	}
	checkFiles(t, run.Dir, secrets(t, p))
	locks, err := filepath.Glob(filepath.Join(run.Dir, "tmp", "flakeship*"))
	if err != nil || len(locks) > 0 {
		t.Errorf("left in the temporary folder: %q, %v", locks, err)
	}
}

// processes are the command lines that begin with command, whose arguments end in zeros.
func processes(t *testing.T, command string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && bytes.HasPrefix(text, []byte(command)) { // else it has ended
			found = append(found, string(text))
		}
	}
	return found
}

// holdUploads is a way to p's registry on which a blob's upload never ends. uploading says that one has begun.
func holdUploads(t *testing.T, p *pipeline.Pipeline) (registry string, uploading func() bool) {
	begun := make(chan struct{})
	var once sync.Once
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: p.Env.Registry.Host})
		r.Out.Host = r.In.Host // which the registry names in the addresses of uploads
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/uploads/") {
			once.Do(func() { close(begun) })
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://") + "/shop", func() bool {
		select {
		case <-begun:
			return true
		default:
			return false
		}
	}
}
