package env_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	c, err := start(t).Cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func namespace(t *testing.T, c kubernetes.Interface) string {
	t.Helper()
	ns, err := c.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// pods makes a template whose pods carry the label and run the image.
func pods(label, image string) (*metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": label}
	return &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
	}
}

func TestWorkloadsBecomeReady(t *testing.T) {
	ctx := t.Context()
	c := client(t)
	ns := namespace(t, c)
	two := int32(2)
	begin := time.Now()

	selector, template := pods("deployment", "registry.test/api@sha256:"+strings.Repeat("a", 64))
	_, err := c.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"},
		Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: selector, Template: template}}, metav1.CreateOptions{})
	must(t, err)
	selector, template = pods("statefulset", "registry.test/db:1")
	_, err = c.AppsV1().StatefulSets(ns).Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec: appsv1.StatefulSetSpec{Replicas: &two, Selector: selector, Template: template}}, metav1.CreateOptions{})
	must(t, err)
	selector, template = pods("daemonset", "registry.test/agent:1")
	_, err = c.AppsV1().DaemonSets(ns).Create(ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}, metav1.CreateOptions{})
	must(t, err)
	createJob(t, c, ns, "registry.test/migrate:1")

	eventually(t, "workloads are ready", func() (bool, error) {
		d, err := c.AppsV1().Deployments(ns).Get(ctx, "d", metav1.GetOptions{})
		if err != nil || d.Status.AvailableReplicas != 2 {
			return false, err
		}
		s, err := c.AppsV1().StatefulSets(ns).Get(ctx, "s", metav1.GetOptions{})
		if err != nil || s.Status.ReadyReplicas != 2 {
			return false, err
		}
		a, err := c.AppsV1().DaemonSets(ns).Get(ctx, "a", metav1.GetOptions{})
		if err != nil || a.Status.NumberReady != 2 { // one per node
			return false, err
		}
		j, err := c.BatchV1().Jobs(ns).Get(ctx, "j", metav1.GetOptions{})
		return err == nil && j.Status.Succeeded == 1 && j.Status.CompletionTime != nil, err
	})
	t.Logf("ready in %s", time.Since(begin))

	// The controllers let go of their pods, and KWOK of the pods' objects.
	must(t, c.AppsV1().Deployments(ns).Delete(ctx, "d", metav1.DeleteOptions{}))
	eventually(t, "the pods of the deleted deployment are gone", func() (bool, error) {
		left, err := c.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=deployment"})
		return err == nil && len(left.Items) == 0, err
	})
}

func TestImagesThatFail(t *testing.T) {
	ctx := t.Context()
	c := client(t)
	ns := namespace(t, c)
	for image, want := range map[string]func(corev1.PodStatus) bool{
		"registry.test/bad-pull:1": func(s corev1.PodStatus) bool {
			return s.Phase == corev1.PodPending && len(s.ContainerStatuses) == 1 && s.ContainerStatuses[0].State.Waiting != nil &&
				s.ContainerStatuses[0].State.Waiting.Reason == "ImagePullBackOff"
		},
		"registry.test/crash-loop:1": func(s corev1.PodStatus) bool {
			return s.Phase == corev1.PodRunning && len(s.ContainerStatuses) == 1 && s.ContainerStatuses[0].State.Waiting != nil &&
				s.ContainerStatuses[0].RestartCount == 4 && s.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode == 2
		},
		"registry.test/never-ready:1": func(s corev1.PodStatus) bool {
			return s.Phase == corev1.PodRunning && len(s.ContainerStatuses) == 1 && s.ContainerStatuses[0].State.Running != nil && !s.ContainerStatuses[0].Ready
		},
	} {
		_, template := pods("bad", image)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"}, Spec: template.Spec}
		pod, err := c.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
		must(t, err)
		eventually(t, image+" fails as it should", func() (bool, error) {
			got, err := c.CoreV1().Pods(ns).Get(ctx, pod.Name, metav1.GetOptions{})
			return err == nil && want(got.Status), err
		})
	}
	eventually(t, "there are events about them", func() (bool, error) {
		events, err := c.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning"})
		if err != nil {
			return false, err
		}
		reasons := map[string]bool{}
		for _, event := range events.Items {
			reasons[event.Reason] = true
		}
		return reasons["Failed"] && reasons["BackOff"], nil
	})

	createJob(t, c, ns, "registry.test/bad-job:1")
	eventually(t, "the job has failed", func() (bool, error) {
		j, err := c.BatchV1().Jobs(ns).Get(ctx, "j", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range j.Status.Conditions {
			if condition.Type == batchv1.JobFailed && condition.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}

func createJob(t *testing.T, c kubernetes.Interface, ns, image string) {
	t.Helper()
	_, template := pods("job", image)
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	none := int32(0)
	_, err := c.BatchV1().Jobs(ns).Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"},
		Spec: batchv1.JobSpec{Template: template, BackoffLimit: &none}}, metav1.CreateOptions{})
	must(t, err)
}

func TestUsersAreSubjectToRBAC(t *testing.T) {
	kubeconfig, err := start(t).Cluster.User("stranger", "nobody-special")
	must(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	must(t, err)
	c, err := kubernetes.NewForConfig(config)
	must(t, err)
	if _, err := c.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing secrets: %v, want Forbidden", err)
	}
}

func TestKubectlAndAudit(t *testing.T) {
	cluster := start(t).Cluster
	args := cluster.Kubectl("get", "nodes", "--output=name")
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if got := string(out); err != nil || got != "node/node-1\nnode/node-2\n" {
		t.Errorf("kubectl get nodes = %q, %v", got, err)
	}
	log, err := os.ReadFile(cluster.AuditLog)
	if err != nil || !strings.Contains(string(log), `"userAgent":"kubectl/v1.37.2`) {
		t.Errorf("the audit log (%d bytes) does not know kubectl: %v", len(log), err)
	}
	if cluster.Version != "v1.37.2" {
		t.Errorf("version %s, want v1.37.2", cluster.Version)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		ok, err := done()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s; %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
