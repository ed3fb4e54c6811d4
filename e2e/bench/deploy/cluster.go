package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flakeship/flakeship/e2e/env"
)

type bench struct {
	cluster *env.Cluster
	dir     string
	read    int64 // bytes of the audit log
}

// set is a namespace and two files for it, which differ in the tags of the images.
type set struct {
	namespace, kubeconfig string
	size                  int
	old, new              string
}

func (s set) file(what string) string {
	if what == diff || what == update {
		return s.new
	}
	return s.old
}

// prepare makes a namespace and objects for it: Deployments, Services, ConfigMaps, ServiceAccounts.
func (b *bench) prepare(ctx context.Context, ns string, size int) (set, error) {
	s := set{namespace: ns, size: size, old: filepath.Join(b.dir, ns+"-1.yaml"), new: filepath.Join(b.dir, ns+"-2.yaml")}
	client, err := b.cluster.Client()
	if err != nil {
		return s, err
	}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return s, err
	}
	for tag, file := range map[string]string{"1": s.old, "2": s.new} {
		var text strings.Builder
		for i := range size / 4 {
			fmt.Fprintf(&text, objects, i, ns, strings.Repeat("x", 500), tag)
		}
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			return s, err
		}
	}
	return s, nil
}

const objects = `apiVersion: v1
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
  replicas: 1
  selector: {matchLabels: {app: s%[1]d}}
  template:
    metadata: {labels: {app: s%[1]d}}
    spec:
      serviceAccountName: s%[1]d
      containers:
      - name: main
        image: registry.example.org/team/s%[1]d:%[4]s
        ports: [{containerPort: 8080}]
        envFrom: [{configMapRef: {name: s%[1]d}}]
        resources: {requests: {cpu: 10m, memory: 0.5Gi}}
        readinessProbe: {httpGet: {path: /ready, port: 8080}}
---
`

// kubeconfig is the administrator's, through a proxy that delays when there is a round trip to simulate.
func (b *bench) kubeconfig(trip int) (string, error) {
	if trip == 0 {
		return b.cluster.Kubeconfig, nil
	}
	address, err := slow(strings.TrimPrefix(b.cluster.URL, "https://"), time.Duration(trip)*time.Millisecond)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(b.cluster.Kubeconfig)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, fmt.Sprintf("kubeconfig-%d", trip))
	return path, os.WriteFile(path, bytes.ReplaceAll(text, []byte(b.cluster.URL), []byte("https://"+address)), 0o600)
}

// settle waits until the controllers are done: no tool is to be measured beside them.
func (b *bench) settle(ctx context.Context, ns string) error {
	client, err := b.cluster.Client()
	if err != nil {
		return err
	}
	busy := func(d appsv1.Deployment) bool {
		return d.Status.ObservedGeneration < d.Generation || d.Status.Replicas != 1 || d.Status.UpdatedReplicas != 1 || d.Status.AvailableReplicas != 1
	}
	for {
		list, err := client.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, busy) {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// requests counts what the API server has logged since the last call. The log is never in memory whole: a process that is started
// counts the memory of the one that starts it as its own.
func (b *bench) requests(agent string) (n int, err error) {
	f, err := os.Open(b.cluster.AuditLog)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Seek(b.read, io.SeekStart); err != nil {
		return 0, err
	}
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { // the last line may be on its way
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		b.read += int64(len(line))
		if !bytes.Contains(line, []byte(agent)) {
			continue
		}
		var entry struct{ UserAgent, Stage string }
		if err := json.Unmarshal(line, &entry); err != nil {
			return 0, err
		}
		if entry.Stage == "ResponseComplete" && strings.Contains(entry.UserAgent, agent) {
			n++
		}
	}
}

// startup is how long the program that kubectl is part of takes to do nothing.
func (b *bench) startup(ctx context.Context) time.Duration {
	args := b.cluster.Kubectl("version", "--client")
	begin := time.Now()
	exec.CommandContext(ctx, args[0], args[1:]...).Run() //nolint:errcheck // only its time matters
	return time.Since(begin).Round(time.Millisecond)
}
