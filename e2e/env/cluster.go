package env

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/flakeship/flakeship/e2e/process"
)

// Cluster is a running Kubernetes control plane: etcd, API server (RBAC),
// controller manager, scheduler, and KWOK, which plays the kubelets. Objects,
// controllers, events and admission are real; containers are not. A pod is
// ready at once, one of a Job has succeeded at once, and these parts of a first
// container's image reference make it fail instead:
//
//   - "bad-pull": ImagePullBackOff with an event, for ever
//   - "crash-loop": CrashLoopBackOff after four restarts, with an event
//   - "never-ready": runs, but its readiness never comes
//   - "bad-job": terminates with exit code 1, in pods of a Job
type Cluster struct {
	URL        string // https://127.0.0.1:port
	Version    string // v1.37.2
	Kubeconfig string // path of a kubeconfig of a cluster administrator
	AuditLog   string // path; empty without Options.Audit
	Dir        string // certificates, configuration and etcd's data

	services string
	ca       *authority
	config   *rest.Config

	apiserver []string // its arguments
	logs      string

	mu        sync.Mutex
	processes []*process.Process
}

// Stages of simulated nodes and pods, for KWOK.
//
//go:embed stages.yaml
var stages []byte

// Stages of pods that get into trouble.
//
//go:embed troubles.yaml
var troubles []byte

// What every simulated container has written: the run that is on, and the one before.
const (
	containerLog         = "2026-01-01T00:00:00Z stdout F listening on :8080\n"
	previousContainerLog = "2026-01-01T00:00:00Z stdout F connecting to the database as hunter2-password\n" +
		"2026-01-01T00:00:01Z stderr F panic: no route to the database\n"
	clusterLogs = `apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {name: all}
spec: {logs: [{logsFile: %q, previousLogsFile: %q}]}
`
)

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// StartCluster starts an empty cluster in o.Dir/cluster and waits until its
// nodes are ready and the default service account exists.
func StartCluster(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.prepare(ctx); err != nil {
		return nil, err
	}
	c := &Cluster{Dir: filepath.Join(o.Dir, "cluster"), services: o.Services}
	if err := os.RemoveAll(c.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.start(ctx, o); err != nil {
		c.Stop()
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o Options) error {
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	etcdURL := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	c.URL = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	kubeletPort := strconv.Itoa(ports[3])

	if err := c.writeFiles(); err != nil {
		return err
	}
	logs := o.logs()
	if err := c.run(logs, "etcd",
		"--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL,
		"--name=etcd", "--initial-cluster=etcd="+peerURL,
	); err != nil {
		return err
	}
	// The API server waits for etcd by itself.
	apiserver := []string{
		"--etcd-servers=" + etcdURL, "--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(ports[2]),
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged", "--authorization-mode=RBAC",
		"--client-ca-file=" + c.path("ca.crt"),
		"--tls-cert-file=" + c.path("server.crt"), "--tls-private-key-file=" + c.path("server.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("service-account.key"),
		"--service-account-signing-key-file=" + c.path("service-account.key"),
		"--kubelet-client-certificate=" + c.path("admin.crt"), "--kubelet-client-key=" + c.path("admin.key"),
	}
	if o.Audit {
		c.AuditLog = c.path("audit.log")
		apiserver = append(apiserver, "--audit-policy-file="+c.path("audit-policy.yaml"), "--audit-log-path="+c.AuditLog,
			"--audit-log-maxsize=16384") // MiB: a log that begins anew would lose what is counted
	}
	c.apiserver, c.logs = apiserver, logs
	if err := c.run(logs, "kube-apiserver", apiserver...); err != nil {
		return err
	}

	client, err := c.Client()
	if err != nil {
		return err
	}
	err = await(ctx, 60*time.Second, c.processes, "the API server is ready", func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		return err
	}
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	c.Version = version.GitVersion

	// Generous rates: a test's burst of objects must not wait for a client's throttle.
	rates := []string{"--leader-elect=false", "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000"}
	if err := errors.Join(
		c.run(logs, "kube-controller-manager", append(rates,
			// As administrator: with a user of its own it would need a token per controller, which takes seconds.
			"--kubeconfig="+c.Kubeconfig, "--root-ca-file="+c.path("ca.crt"),
			"--service-account-private-key-file="+c.path("service-account.key"), "--use-service-account-credentials=false")...),
		c.run(logs, "kube-scheduler", append(rates, "--kubeconfig="+c.path("scheduler.kubeconfig"))...),
		c.run(logs, "kwok", "--kubeconfig="+c.Kubeconfig, "--config="+c.path("stages.yaml"),
			"--manage-all-nodes=true", "--node-ip=127.0.0.1", "--node-port="+kubeletPort, "--server-address=127.0.0.1:"+kubeletPort,
			"--tls-cert-file="+c.path("server.crt"), "--tls-private-key-file="+c.path("server.key"), "--node-lease-duration-seconds=40"),
	); err != nil {
		return err
	}
	return c.awaitNodes(ctx, client, cmp.Or(o.Nodes, 2))
}

// RestartAPIServer kills the API server, leaves it away for a while, and starts it again on what etcd has. It returns when the
// process runs, not when it answers.
func (c *Cluster) RestartAPIServer(away time.Duration) error {
	c.mu.Lock()
	i := slices.IndexFunc(c.processes, func(p *process.Process) bool { return p.Name == "kube-apiserver" })
	old := c.processes[i]
	c.processes = slices.Delete(c.processes, i, i+1)
	c.mu.Unlock()
	if err := old.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-old.Done()
	time.Sleep(away)
	return c.run(c.logs, "kube-apiserver", c.apiserver...)
}

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Cluster) run(logs, name string, args ...string) error {
	p, err := process.Start(process.Options{
		Name: name, Path: c.services, Args: append([]string{name}, args...), LogDir: logs, Dir: c.Dir,
		// A home of its own: none of these reads a user's kubeconfig.
		Env: []string{"HOME=" + c.Dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()},
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes = append(c.processes, p)
	return nil
}

func (c *Cluster) writeFiles() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	c.ca = ca
	server, err := ca.server()
	if err != nil {
		return err
	}
	serviceAccount, err := ca.client("service-account-signer") // its key alone is used
	if err != nil {
		return err
	}
	admin, err := ca.client("flakeship-e2e-admin", "system:masters")
	if err != nil {
		return err
	}
	c.config = &rest.Config{
		Host:            c.URL,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.pem, CertData: admin.cert, KeyData: admin.key},
		QPS:             -1, // no throttle
	}
	c.Kubeconfig = c.path("kubeconfig")
	return errors.Join(
		os.WriteFile(c.path("ca.crt"), ca.pem, 0o644),
		os.WriteFile(c.path("stages.yaml"), slices.Concat(stages, []byte("---\n"), troubles, []byte("---\n"),
			fmt.Appendf(nil, clusterLogs, c.path("container.log"), c.path("previous.log"))), 0o644),
		os.WriteFile(c.path("container.log"), []byte(containerLog), 0o644),
		os.WriteFile(c.path("previous.log"), []byte(previousContainerLog), 0o644),
		os.WriteFile(c.path("audit-policy.yaml"), []byte(auditPolicy), 0o644),
		server.write(c.Dir, "server"),
		serviceAccount.write(c.Dir, "service-account"),
		admin.write(c.Dir, "admin"),
		c.writeKubeconfig(c.Kubeconfig, "admin", admin),
		c.user(c.path("scheduler.kubeconfig"), "system:kube-scheduler"),
	)
}

// User writes a kubeconfig of a user with these groups to the cluster's folder
// and returns its path. RBAC gives a new user next to nothing.
func (c *Cluster) User(name string, groups ...string) (string, error) {
	path := c.path("user-" + name + ".kubeconfig")
	return path, c.user(path, name, groups...)
}

func (c *Cluster) user(path, name string, groups ...string) error {
	pair, err := c.ca.client(name, groups...)
	if err != nil {
		return err
	}
	return c.writeKubeconfig(path, name, pair)
}

func (c *Cluster) writeKubeconfig(path, user string, pair keyPair) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["flakeship-e2e"] = &clientcmdapi.Cluster{Server: c.URL, CertificateAuthorityData: c.ca.pem}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.cert, ClientKeyData: pair.key}
	config.Contexts["flakeship-e2e"] = &clientcmdapi.Context{Cluster: "flakeship-e2e", AuthInfo: user, Namespace: "default"}
	config.CurrentContext = "flakeship-e2e"
	return clientcmd.WriteToFile(*config, path)
}

// Config is the administrator's access, for clients of any kind.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Client is a typed client of the administrator.
func (c *Cluster) Client() (*kubernetes.Clientset, error) {
	return kubernetes.NewForConfig(c.Config())
}

// Kubectl is the command line of kubectl on this cluster, to be run or shown.
// Its cache is the cluster's too: by default it would be in the user's ~/.kube.
func (c *Cluster) Kubectl(args ...string) []string {
	return append([]string{c.services, "kubectl", "--kubeconfig=" + c.Kubeconfig, "--cache-dir=" + c.path("kubectl-cache")}, args...)
}

func (c *Cluster) awaitNodes(ctx context.Context, client kubernetes.Interface, count int) error {
	for i := range count {
		name := fmt.Sprintf("node-%d", i+1)
		room := corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("500"),
		}
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: runtime.GOARCH,
			}},
			Status: corev1.NodeStatus{Allocatable: room, Capacity: room},
		}
		if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return await(ctx, 30*time.Second, c.processes, "nodes are ready and have room", func(ctx context.Context) error {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, node := range nodes.Items {
			if len(node.Spec.Taints) > 0 {
				return fmt.Errorf("node %s has the taint %s", node.Name, node.Spec.Taints[0].Key)
			}
			if !ready(node) {
				return fmt.Errorf("node %s is not ready", node.Name)
			}
		}
		_, err = client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func ready(node corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Stop stops the cluster's processes. Stopping again does nothing.
func (c *Cluster) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	// All at once and with little patience: the next start throws the data away,
	// and an API server would wait for its watchers.
	var wg sync.WaitGroup
	for _, p := range c.processes {
		wg.Go(func() { p.Stop(time.Second) })
	}
	wg.Wait()
}
