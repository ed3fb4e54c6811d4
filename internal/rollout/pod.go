package rollout

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// pod is the part of a Pod that shows why it is not ready.
type pod struct {
	Metadata metadata `json:"metadata"`
	Status   struct {
		Phase                 string            `json:"phase"`
		Conditions            []condition       `json:"conditions"`
		ContainerStatuses     []containerStatus `json:"containerStatuses"`
		InitContainerStatuses []containerStatus `json:"initContainerStatuses"`
	} `json:"status"`
}

type containerStatus struct {
	Name         string `json:"name"`
	Ready        bool   `json:"ready"`
	RestartCount int64  `json:"restartCount"`
	State        state  `json:"state"`
	LastState    state  `json:"lastState"`
}

type state struct {
	Waiting *struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"waiting"`
	Running    *struct{} `json:"running"`
	Terminated *struct {
		ExitCode int64  `json:"exitCode"`
		Reason   string `json:"reason"`
		Message  string `json:"message"`
	} `json:"terminated"`
}

// trouble is what keeps a pod from running, as a rule one of its containers.
type trouble struct {
	pod       metadata
	container string        // empty: it is not about one
	patience  time.Duration // how long this may last before it is a failure; 0: not at all; forever: it is none
	text      string
	ran       bool // the container did, so that it may have said why
	previous  bool // it ran before and has been started again, or will be
}

// forever is the patience with what others may still put right: a node that is added, a registry that recovers.
const forever time.Duration = 1<<63 - 1

// restartsAllowed is how often a container may have been restarted and crash again. One crash may be bad luck, and so may
// be the second, while a database starts; after the third, some 12 seconds have gone by.
const restartsAllowed = 1

// containers are the pod's, in the order in which they start.
func (p pod) containers() []containerStatus {
	return slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
}

// troubles lists what keeps the pod's containers from running. inJob says that a Job counts the crashes.
func (p pod) troubles(inJob bool) (all []trouble) {
	if p.Metadata.DeletionTimestamp != "" || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return nil
	}
	for _, c := range p.containers() {
		if w := c.State.Waiting; w != nil {
			if patience, relevant := c.patience(inJob); relevant {
				t := p.about(c, fmt.Sprintf("container %s of pod %s: %s", c.Name, p.Metadata.Name, c.why()))
				t.patience = patience
				all = append(all, *t)
			}
		}
	}
	return all
}

// patience classifies a waiting container. Not relevant are the ordinary steps of a start.
func (c containerStatus) patience(inJob bool) (d time.Duration, relevant bool) {
	switch w := c.State.Waiting; w.Reason {
	case "", "ContainerCreating", "PodInitializing":
		return forever, false
	case "InvalidImageName", "ErrImageNeverPull":
		return 0, true
	case "ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable":
		return pullPatience(w.Message), true
	case "CreateContainerConfigError": // a ConfigMap or Secret is missing: another controller may bring it
		return 15 * time.Second, true
	case "CreateContainerError", "RunContainerError":
		return createPatience(w.Message), true
	case "CrashLoopBackOff":
		if inJob || c.RestartCount <= restartsAllowed {
			return forever, true
		}
		return 0, true
	}
	return forever, true
}

// why is the reason in words: the server's, and how the container ended last.
func (c containerStatus) why() string {
	w := c.State.Waiting
	text := w.Reason
	if w.Message != "" && w.Reason != "CrashLoopBackOff" { // whose message only says how long the pause is
		text += ": " + strings.TrimSpace(w.Message)
	}
	if t := c.LastState.Terminated; t != nil {
		text += fmt.Sprintf(", it ended with exit code %d", t.ExitCode)
		if t.Reason != "" && t.Reason != "Error" {
			text += " (" + t.Reason + ")"
		}
		if t.Message != "" {
			text += ": " + strings.TrimSpace(t.Message)
		}
		if c.RestartCount > 0 {
			text += fmt.Sprintf(" after %d restarts", c.RestartCount)
		}
	}
	return text
}

// What registries and runtimes say of an image that cannot be pulled, and runtimes of a container that they cannot make. Trouble
// that may pass is looked for first: a rate limit is reported as "denied" by some. A container whose name "is reserved" is still
// being made, on a slow disk: see containerd's issue 4604.
var (
	passing = regexp.MustCompile(`toomanyrequests|too many requests|rate limit|\b429\b|\b50[0234]\b|timeout|timed out|connection refused|` +
		`connection reset|\beof\b|temporary failure|server misbehaving|qps exceeded|deadline exceeded|context canceled|is reserved`)
	lasting = regexp.MustCompile(`manifest[ _]unknown|name[ _]unknown|not ?found|does not exist|denied|unauthorized|forbidden|\b40[13]\b|` +
		`no match for platform|no matching manifest|invalid reference`)
	// names are no part of what is said: a digest may well have a 503 in it.
	names = regexp.MustCompile(`"[^"]*"|\S*[/@]\S*|sha256:\S*`)
)

// unclearPull is how long a pull may fail for a reason not known here: the kubelet's second attempt comes after 10 seconds.
const unclearPull = 20 * time.Second

func pullPatience(message string) time.Duration {
	switch said := nameless(message); {
	case passing.MatchString(said):
		return forever
	case lasting.MatchString(said):
		return 0
	}
	return unclearPull
}

// unmade is how long a container may be impossible to make or to start. The kubelet tries again after 10 seconds only; what is
// wrong with the image is to be known in five.
const unmade = 3 * time.Second

func createPatience(message string) time.Duration {
	if passing.MatchString(nameless(message)) {
		return forever
	}
	return unmade
}

func nameless(message string) string {
	return names.ReplaceAllString(strings.ToLower(message), " ")
}

// remember completes what is said of a pull that is put off: older kubelets say why at the attempt alone, not in the pause that
// follows.
func (p pod) remember(before pod) {
	for _, c := range p.containers() {
		w := c.State.Waiting
		if w == nil || w.Reason != "ImagePullBackOff" || strings.TrimSpace(nameless(w.Message)) != "back-off pulling image" {
			continue
		}
		for _, b := range before.containers() {
			if b.Name == c.Name && b.State.Waiting != nil && (b.State.Waiting.Reason == "ErrImagePull" || b.State.Waiting.Reason == w.Reason) {
				w.Message = b.State.Waiting.Message
			}
		}
	}
}

// about is something to say of a container.
func (p pod) about(c containerStatus, text string) *trouble {
	return &trouble{pod: p.Metadata, container: c.Name, patience: forever, text: text,
		ran: c.RestartCount > 0 || c.State.Running != nil || c.State.Terminated != nil || c.LastState.Terminated != nil, previous: c.LastState.Terminated != nil && c.State.Terminated == nil}
}

// slow says what a pod that has not failed is waiting for; nil: nothing.
func (p pod) slow() *trouble {
	if p.Metadata.DeletionTimestamp != "" {
		return nil
	}
	if c := find(p.Status.Conditions, "PodScheduled"); c.Status == "False" {
		return &trouble{pod: p.Metadata, patience: forever, text: fmt.Sprintf("pod %s is not scheduled: %s", p.Metadata.Name, c.Message)}
	}
	if troubles := p.troubles(false); len(troubles) > 0 {
		return &troubles[0]
	}
	for _, c := range p.containers() {
		switch {
		case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
			return p.about(c, fmt.Sprintf("container %s of pod %s ended with exit code %d (%s)", c.Name, p.Metadata.Name, c.State.Terminated.ExitCode, c.State.Terminated.Reason))
		case c.State.Waiting != nil && c.State.Waiting.Reason != "PodInitializing":
			return p.about(c, fmt.Sprintf("container %s of pod %s: %s", c.Name, p.Metadata.Name, c.State.Waiting.Reason))
		case c.State.Running != nil && !c.Ready:
			return p.about(c, fmt.Sprintf("container %s of pod %s runs but is not ready", c.Name, p.Metadata.Name))
		}
	}
	return nil
}
