package rollout

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// Each workload's own status, and what it says to somebody whose write returned generation 2.
func TestJudge(t *testing.T) {
	tests := []struct {
		name, text string
		phase      phase
		says       string
	}{
		{"the controller is behind", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 1}, status: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1}}`,
			progressing, "its controller has not seen the change yet"},
		{"ready", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 3}, status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, availableReplicas: 3}}`, ready, "3 pods"},
		{"the default is one replica", `{apiVersion: apps/v1, kind: Deployment, spec: {}, status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1, availableReplicas: 1}}`, ready, "1 pod"},
		{"scaled to zero", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 0}, status: {observedGeneration: 2}}`, ready, "0 pods"},
		{"a newer generation was observed", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 1}, status: {observedGeneration: 3, replicas: 1, updatedReplicas: 1, availableReplicas: 1}}`, ready, "1 pod"},
		{"some updated", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 3}, status: {observedGeneration: 2, replicas: 4, updatedReplicas: 2, availableReplicas: 3}}`, progressing, "2 of 3 pods updated, 3 available"},
		{"an old pod is left", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 3}, status: {observedGeneration: 2, replicas: 4, updatedReplicas: 3, availableReplicas: 4}}`, progressing, "1 old pods are still to go"},
		{"not available yet", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 3}, status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, availableReplicas: 2}}`, progressing, "3 of 3 pods updated, 2 available"},
		{"the deadline is over", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1, conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded}]}}`,
			failed, "its progress deadline is over: 1 of 1 pods updated, 0 available"},
		{"the deadline was over, but then", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1, availableReplicas: 1, conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded}]}}`, ready, "1 pod"},
		{"pods are refused", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 1}, status: {observedGeneration: 2, conditions: [{type: ReplicaFailure, status: "True", reason: FailedCreate, message: exceeded quota}]}}`, stuck, "its pods cannot be created: exceeded quota"},
		{"paused", `{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 2, paused: true}, status: {observedGeneration: 2, replicas: 2, availableReplicas: 2}}`, nothing, "it is paused: nothing rolls out until it is resumed"},

		{"StatefulSet ready", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, readyReplicas: 2}}`, ready, "2 pods"},
		{"StatefulSet half-way", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 1, readyReplicas: 2}}`, progressing, "1 of 2 pods updated, 2 available"},
		{"StatefulSet, minReadySeconds", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 2, minReadySeconds: 9}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 1}}`, progressing, "2 of 2 pods updated, 1 available"},
		{"StatefulSet, partition", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}}, status: {observedGeneration: 2, replicas: 3, updatedReplicas: 1, readyReplicas: 3}}`, ready, "3 pods, 1 updated: the partition is 2"},
		{"StatefulSet, partition above", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 3, updateStrategy: {rollingUpdate: {partition: 9}}}, status: {observedGeneration: 2, replicas: 3, readyReplicas: 3}}`, ready, "3 pods, 0 updated: the partition is 9"},
		{"StatefulSet shrinking", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, readyReplicas: 2}}`, progressing, "2 of 1 pods updated, 2 available"},
		{"StatefulSet, OnDelete", `{apiVersion: apps/v1, kind: StatefulSet, spec: {replicas: 2, updateStrategy: {type: OnDelete}}, status: {observedGeneration: 2, replicas: 2, readyReplicas: 2}}`, nothing, "its update strategy is OnDelete: 2 of 2 pods run the old version until they are deleted"},

		{"DaemonSet ready", `{apiVersion: apps/v1, kind: DaemonSet, status: {observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberAvailable: 3}}`, ready, "3 pods"},
		{"DaemonSet without nodes", `{apiVersion: apps/v1, kind: DaemonSet, status: {observedGeneration: 2}}`, ready, "0 pods"},
		{"DaemonSet half-way", `{apiVersion: apps/v1, kind: DaemonSet, status: {observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 1, numberAvailable: 3}}`, progressing, "1 of 3 pods updated, 3 available"},

		{"Job running", `{apiVersion: batch/v1, kind: Job, spec: {completions: 3}, status: {succeeded: 1, active: 1}}`, progressing, "1 of 3 completions"},
		{"Job complete", `{apiVersion: batch/v1, kind: Job, status: {succeeded: 1, conditions: [{type: SuccessCriteriaMet, status: "True"}, {type: Complete, status: "True"}]}}`, ready, "complete"},
		{"Job failed", `{apiVersion: batch/v1, kind: Job, status: {conditions: [{type: FailureTarget, status: "True"}, {type: Failed, status: "True", reason: BackoffLimitExceeded, message: too often}]}}`, failed, "the Job failed: too often"},
		{"Job failed, without words", `{apiVersion: batch/v1, kind: Job, status: {conditions: [{type: Failed, status: "True", reason: DeadlineExceeded}]}}`, failed, "the Job failed: DeadlineExceeded"},
		{"Job finished and being removed", `{apiVersion: batch/v1, kind: Job, metadata: {deletionTimestamp: "2026-11-22T15:57:33Z"}, status: {conditions: [{type: Complete, status: "True"}]}}`, ready, "complete"},
		{"being deleted", `{apiVersion: apps/v1, kind: Deployment, metadata: {deletionTimestamp: "2026-11-22T15:57:33Z"}, spec: {replicas: 0}, status: {observedGeneration: 2}}`, failed, "it is being deleted"},

		{"ReplicaSet", `{apiVersion: apps/v1, kind: ReplicaSet, spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, availableReplicas: 1}}`, progressing, "2 of 2 pods updated, 1 available"},
		{"pod", `{apiVersion: v1, kind: Pod, status: {phase: Running, conditions: [{type: Ready, status: "False"}]}}`, progressing, "it is not ready"},
		{"pod that is done", `{apiVersion: v1, kind: Pod, status: {phase: Succeeded}}`, ready, "complete"},
		{"claim", `{apiVersion: v1, kind: PersistentVolumeClaim, status: {phase: Pending}}`, progressing, "it is not bound to a volume"},
		{"claim, bound", `{apiVersion: v1, kind: PersistentVolumeClaim, status: {phase: Bound}}`, ready, "bound"},
		{"claim, lost", `{apiVersion: v1, kind: PersistentVolumeClaim, status: {phase: Lost}}`, failed, "its volume is lost"},
		{"CronJob", `{apiVersion: batch/v1, kind: CronJob}`, nothing, ""},
		{"ConfigMap", `{apiVersion: v1, kind: ConfigMap}`, nothing, ""},
		{"definition whose names are taken", `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, status: {conditions: [{type: NamesAccepted, status: "False", message: in use}]}}`, failed, "its names are taken: in use"},
		{"APIService", `{apiVersion: apiregistration.k8s.io/v1, kind: APIService, status: {conditions: [{type: Available, status: "False", reason: MissingEndpoints}]}}`, progressing, "it is not available: MissingEndpoints"},
		{"autoscaler of nothing", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, status: {conditions: [{type: AbleToScale, status: "False", reason: FailedGetScale, message: deployments.apps "x" not found}]}}`, stuck, `it is not able to scale: deployments.apps "x" not found`},

		{"custom resource that says nothing", `{apiVersion: x.test/v1, kind: X, status: {seen: true}}`, nothing, ""},
		{"custom resource, ready", `{apiVersion: x.test/v1, kind: X, status: {conditions: [{type: Ready, status: "True"}]}}`, ready, "ready"},
		{"custom resource, not ready", `{apiVersion: x.test/v1, kind: X, status: {observedGeneration: 2, conditions: [{type: Ready, status: "False", message: no issuer}]}}`, progressing, "it is not ready: no issuer"},
		{"custom resource, ready before", `{apiVersion: x.test/v1, kind: X, status: {observedGeneration: 1, conditions: [{type: Ready, status: "True"}]}}`, progressing, unseen},
		{"custom resource, generation as text", `{apiVersion: x.test/v1, kind: X, status: {observedGeneration: "1", conditions: [{type: Ready, status: "True"}]}}`, progressing, unseen},
		{"custom resource, stalled", `{apiVersion: x.test/v1, kind: X, status: {conditions: [{type: Ready, status: Unknown}, {type: Stalled, status: "True", message: bad url}]}}`, stuck, "it is stalled: bad url"},
		{"custom resource with odd conditions", `{apiVersion: x.test/v1, kind: X, status: {conditions: fine}}`, nothing, ""},
		{"Job suspended", `{apiVersion: batch/v1, kind: Job, spec: {suspend: true}}`, nothing, "it is suspended: nothing runs until it is resumed"},
	}
	for _, tt := range tests {
		got, err := judge(object(t, tt.text), 2)
		if err != nil {
			t.Fatal(err)
		}
		if got.phase != tt.phase || got.text != tt.says {
			t.Errorf("%s: phase %d, %q; want %d, %q", tt.name, got.phase, got.text, tt.phase, tt.says)
		}
	}
}

// How long a container's trouble may last, and what is said of it.
func TestTroubles(t *testing.T) {
	waiting := func(reason, message string, more string) string {
		return `{kind: Pod, metadata: {name: p}, status: {phase: Pending, containerStatuses: [{name: c, ` + more + ` state: {waiting: {reason: ` + reason + `, message: '` + message + `'}}}]}}`
	}
	const none = time.Duration(-1)
	tests := []struct {
		name, pod string
		inJob     bool
		patience  time.Duration
		says      string
	}{
		{"starting", waiting("ContainerCreating", "", ""), false, none, ""},
		{"initialising", waiting("PodInitializing", "", ""), false, none, ""},
		{"a name that is none", waiting("InvalidImageName", "Failed to apply default image tag", ""), false, 0, "container c of pod p: InvalidImageName: Failed to apply default image tag"},
		{"never to be pulled", waiting("ErrImageNeverPull", "", ""), false, 0, "container c of pod p: ErrImageNeverPull"},
		{"containerd: not found", waiting("ErrImagePull", `rpc error: code = NotFound desc = failed to pull and unpack image "r/a:1": failed to resolve reference "r/a:1": r/a:1: not found`, ""), false, 0,
			`container c of pod p: ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image "r/a:1": failed to resolve reference "r/a:1": r/a:1: not found`},
		{"a registry that refuses", waiting("ImagePullBackOff", `Back-off pulling image "r/a:1": ErrImagePull: unexpected status from HEAD request to https://r/v2/a/manifests/1: 401 Unauthorized`, ""), false, 0,
			`container c of pod p: ImagePullBackOff: Back-off pulling image "r/a:1": ErrImagePull: unexpected status from HEAD request to https://r/v2/a/manifests/1: 401 Unauthorized`},
		{"another platform", waiting("ErrImagePull", "no match for platform in manifest: not found", ""), true, 0, "container c of pod p: ErrImagePull: no match for platform in manifest: not found"},
		{"Docker Hub's limit", waiting("ErrImagePull", "toomanyrequests: You have reached your pull rate limit. denied", ""), false, forever, "container c of pod p: ErrImagePull: toomanyrequests: You have reached your pull rate limit. denied"},
		{"a registry that is down", waiting("ErrImagePull", "dial tcp 10.0.0.1:443: connect: connection refused", ""), false, forever, "container c of pod p: ErrImagePull: dial tcp 10.0.0.1:443: connect: connection refused"},
		{"a pull without a reason", waiting("ImagePullBackOff", `Back-off pulling image "r/a:1"`, ""), false, unclearPull, `container c of pod p: ImagePullBackOff: Back-off pulling image "r/a:1"`},
		{"a ConfigMap is missing", waiting("CreateContainerConfigError", `configmap "x" not found`, ""), false, 15 * time.Second, `container c of pod p: CreateContainerConfigError: configmap "x" not found`},
		{"nothing to run", waiting("CreateContainerError", "failed to generate container spec: no command specified", ""), false, unmade, "container c of pod p: CreateContainerError: failed to generate container spec: no command specified"},
		{"a disk that is slow", waiting("CreateContainerError", `failed to reserve container name "c_p_0": name "c_p_0" is reserved for "4f"`, ""), false, forever,
			`container c of pod p: CreateContainerError: failed to reserve container name "c_p_0": name "c_p_0" is reserved for "4f"`},
		{"a program that is not there", waiting("RunContainerError", `exec: "serve": executable file not found in $PATH`, ""), false, unmade, `container c of pod p: RunContainerError: exec: "serve": executable file not found in $PATH`},
		{"one crash", waiting("CrashLoopBackOff", "back-off 10s", `restartCount: 1, lastState: {terminated: {exitCode: 1, reason: Error}},`), false, forever,
			"container c of pod p: CrashLoopBackOff, it ended with exit code 1 after 1 restarts"},
		{"crash after crash", waiting("CrashLoopBackOff", "back-off 20s", `restartCount: 2, lastState: {terminated: {exitCode: 137, reason: OOMKilled}},`), false, 0,
			"container c of pod p: CrashLoopBackOff, it ended with exit code 137 (OOMKilled) after 2 restarts"},
		{"a crash with last words", waiting("CrashLoopBackOff", "", `restartCount: 5, lastState: {terminated: {exitCode: 2, reason: Error, message: "no database\n"}},`), false, 0,
			"container c of pod p: CrashLoopBackOff, it ended with exit code 2: no database after 5 restarts"},
		{"a Job counts for itself", waiting("CrashLoopBackOff", "", `restartCount: 5,`), true, forever, "container c of pod p: CrashLoopBackOff"},
		{"a reason of tomorrow", waiting("SomethingNew", "", ""), false, forever, "container c of pod p: SomethingNew"},
		{"on its way out", `{metadata: {name: p, deletionTimestamp: "2026-11-22T15:57:33Z"}, status: {containerStatuses: [{name: c, state: {waiting: {reason: InvalidImageName}}}]}}`, false, none, ""},
		{"evicted", `{metadata: {name: p}, status: {phase: Failed, containerStatuses: [{name: c, state: {waiting: {reason: InvalidImageName}}}]}}`, false, none, ""},
		{"an init container", `{metadata: {name: p}, status: {phase: Pending, initContainerStatuses: [{name: i, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}}}], containerStatuses: [{name: c, state: {waiting: {reason: PodInitializing}}}]}}`, false, 0, "container i of pod p: CrashLoopBackOff"},
		{"running", `{metadata: {name: p}, status: {phase: Running, containerStatuses: [{name: c, restartCount: 9, state: {running: {}}}]}}`, false, none, ""},
	}
	for _, tt := range tests {
		var p pod
		if err := decode(object(t, tt.pod), &p); err != nil {
			t.Fatal(err)
		}
		got := trouble{patience: none}
		if all := p.troubles(tt.inJob); len(all) > 0 {
			got = all[0]
		}
		if got.patience != tt.patience || got.text != tt.says {
			t.Errorf("%s: patience %s, %q; want %s, %q", tt.name, got.patience, got.text, tt.patience, tt.says)
		}
	}
}

// What an image is called says nothing about why it cannot be pulled.
func TestPullPatience(t *testing.T) {
	const image = "reg.test:5030/503/timeout:429@sha256:50340142950350442940350350440150350342940150350350342950350350350a50"
	for _, tt := range []struct {
		message string
		want    time.Duration
	}{
		{"Back-off pulling image \"" + image + "\": manifest unknown", 0},
		{"Back-off pulling image \"" + image + "\"", unclearPull},
		{"rpc error: code = NotFound desc = failed to resolve reference " + image + ": " + image + ": not found", 0},
		{"Head \"https://reg.test/v2/denied/manifests/x\": dial tcp: lookup reg.test: i/o timeout", forever},
		{"unexpected status code https://reg.test/v2/a/manifests/sha256:401: 503 Service Unavailable", forever},
		{"pull access denied for reg.test/a, repository does not exist or may require authorization", 0},
		{"unexpected EOF", forever},
		{"rpc error: code = DeadlineExceeded desc = context deadline exceeded", forever},
		{"GEOFENCED", unclearPull},
	} {
		if got := pullPatience(tt.message); got != tt.want {
			t.Errorf("pullPatience(%q) = %s, want %s", tt.message, got, tt.want)
		}
	}
}

func TestSlow(t *testing.T) {
	for want, text := range map[string]string{
		"pod p is not scheduled: 0/2 nodes are available":     `{conditions: [{type: PodScheduled, status: "False", message: 0/2 nodes are available}]}`,
		"container c of pod p runs but is not ready":          `{containerStatuses: [{name: c, state: {running: {}}}]}`,
		"container c of pod p: ContainerCreating":             `{containerStatuses: [{name: c, state: {waiting: {reason: ContainerCreating}}}]}`,
		"container c of pod p ended with exit code 3 (Error)": `{phase: Failed, containerStatuses: [{name: c, state: {terminated: {exitCode: 3, reason: Error}}}]}`,
		"": `{containerStatuses: [{name: c, ready: true, state: {running: {}}}]}`,
	} {
		var p pod
		if err := decode(object(t, "{metadata: {name: p}, status: "+text+"}"), &p); err != nil {
			t.Fatal(err)
		}
		got := ""
		if slow := p.slow(); slow != nil {
			got = slow.text
		}
		if got != want {
			t.Errorf("slow(%s) = %q, want %q", text, got, want)
		}
	}
}
