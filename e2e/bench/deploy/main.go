// Command deploy measures deploy-manifests beside kubectl apply --server-side, on a real API server on loopback: a set of
// objects is created in a new namespace, then applied again unchanged. Neither waits for rollouts. The tools take turns,
// requests are counted from the API server's audit log.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/env"
	"github.com/flakeship/flakeship/e2e/pipeline"
)

const runs = 5

func main() {
	log.SetFlags(0)
	if err := measure(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// tool is one way to apply a file.
type tool struct {
	name, agent string // agent is in the user agent of its requests
	args        func(file string) []string
}

// sample is what one run took.
type sample struct {
	wall, cpu time.Duration
	requests  int
}

func measure(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "flakeship-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := build.Root()
	if err != nil {
		return err
	}
	if err := pipeline.GoBuild(ctx, filepath.Dir(root), dir, "./cmd/deploy-manifests"); err != nil {
		return err
	}
	c, err := env.StartCluster(ctx, env.Options{Dir: dir, Audit: true, Progress: os.Stderr})
	if err != nil {
		return err
	}
	defer c.Stop()
	b := &bench{cluster: c, dir: dir}
	tools := []tool{
		{"deploy-manifests", "deploy-manifests", func(file string) []string {
			return []string{filepath.Join(dir, "deploy-manifests"), "--kubeconfig", c.Kubeconfig, "--name", "bench", "--manifests", file, "--wait=false", "--out", filepath.Join(dir, "out.json")}
		}},
		{"kubectl apply --server-side", "kubectl", func(file string) []string {
			return c.Kubectl("--cache-dir="+filepath.Join(dir, "kube-cache"), "apply", "--server-side", "-f", file)
		}},
	}
	fmt.Printf("%d runs each, medians; kubectl is part of a large program here, which takes %s to start\n\n", runs, b.startup(ctx))
	fmt.Printf("%-8s %-10s %-28s %8s %7s %8s %9s\n", "objects", "", "", "wall s", "ratio", "CPU s", "requests")
	for _, size := range []int{100, 500} {
		samples := map[string][]sample{}
		for i := range runs {
			for _, t := range tools {
				ns := fmt.Sprintf("%s-%d-%d", t.agent[:6], size, i)
				file, err := b.prepare(ctx, ns, size)
				if err != nil {
					return err
				}
				for _, what := range []string{"create", "unchanged"} {
					s, err := b.run(ctx, t, file)
					if err == nil {
						err = b.settle(ctx, ns)
					}
					if err != nil {
						return err
					}
					samples[what+t.name] = append(samples[what+t.name], s)
				}
			}
		}
		for _, what := range []string{"create", "unchanged"} {
			var ours time.Duration // of the first tool
			for _, t := range tools {
				all := samples[what+t.name]
				slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.wall, b.wall) })
				m := all[runs/2]
				if ours == 0 {
					ours = m.wall
				}
				fmt.Printf("%-8d %-10s %-28s %8.2f %7.1f %8.2f %9d\n", size, what, t.name, m.wall.Seconds(), m.wall.Seconds()/ours.Seconds(), m.cpu.Seconds(), m.requests)
			}
		}
	}
	return nil
}

// settle waits until the controllers are done with what was created: neither tool is to be measured beside them.
func (b *bench) settle(ctx context.Context, ns string) error {
	client, err := b.cluster.Client()
	if err != nil {
		return err
	}
	for {
		list, err := client.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, func(d appsv1.Deployment) bool { return d.Status.ObservedGeneration < d.Generation }) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

type bench struct {
	cluster *env.Cluster
	dir     string
	read    int // bytes of the audit log
}

// prepare makes a namespace and a file of objects for it: Deployments of no replicas, Services, ConfigMaps, ServiceAccounts.
func (b *bench) prepare(ctx context.Context, ns string, size int) (file string, err error) {
	client, err := b.cluster.Client()
	if err != nil {
		return "", err
	}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	var text strings.Builder
	for i := range size / 4 {
		fmt.Fprintf(&text, `apiVersion: v1
kind: ServiceAccount
metadata: {name: s%[1]d, namespace: %[2]s}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: s%[1]d, namespace: %[2]s}
data: {number: "%[1]d", text: "%[3]s"}
---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: %[2]s}
spec: {selector: {app: s%[1]d}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: s%[1]d, namespace: %[2]s, labels: {app: s%[1]d}}
spec:
  replicas: 0
  selector: {matchLabels: {app: s%[1]d}}
  template:
    metadata: {labels: {app: s%[1]d}}
    spec:
      serviceAccountName: s%[1]d
      containers:
      - name: main
        image: registry.example.org/team/s%[1]d:1
        ports: [{containerPort: 8080}]
        envFrom: [{configMapRef: {name: s%[1]d}}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}}
---
`, i, ns, strings.Repeat("x", 500))
	}
	file = filepath.Join(b.dir, ns+".yaml")
	return file, os.WriteFile(file, []byte(text.String()), 0o644)
}

func (b *bench) run(ctx context.Context, t tool, file string) (sample, error) {
	if _, err := b.requests(t.agent); err != nil {
		return sample{}, err
	}
	args := t.args(file)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"HOME=" + b.dir, "PATH=" + os.Getenv("PATH")}
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	s := sample{wall: time.Since(begin), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	var err error
	s.requests, err = b.requests(t.agent)
	return s, err
}

// requests counts what the API server has logged since the last call.
func (b *bench) requests(agent string) (n int, err error) {
	text, err := os.ReadFile(b.cluster.AuditLog)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text[b.read:]) {
		var entry struct{ UserAgent, Stage string }
		if err := json.Unmarshal(line, &entry); err != nil {
			return 0, err
		}
		if entry.Stage == "ResponseComplete" && strings.Contains(entry.UserAgent, agent) {
			n++
		}
	}
	b.read = len(text)
	return n, nil
}

// startup is how long the program that kubectl is part of takes to do nothing.
func (b *bench) startup(ctx context.Context) time.Duration {
	args := b.cluster.Kubectl("version", "--client")
	begin := time.Now()
	exec.CommandContext(ctx, args[0], args[1:]...).Run() //nolint:errcheck // only its time matters
	return time.Since(begin).Round(time.Millisecond)
}
