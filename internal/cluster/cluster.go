// Package cluster is a connection to one Kubernetes API server: how to reach it, what kinds of objects it knows, and what
// its errors mean.
package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Cluster is a connection. It may be used from several goroutines.
type Cluster struct {
	Server    string   // URL of the API server
	Namespace string   // for objects without one
	Secrets   []string // credentials found in a kubeconfig that was given as content: to be masked
	Dynamic   dynamic.Interface

	raw   rest.Interface
	fence *fence
}

// dialTimeout is how long an address that does not answer is tried; client-go's own is 30 seconds.
const dialTimeout = 10 * time.Second

// Open prepares a connection. It sends nothing yet.
//
// Requests are not throttled on this side: callers bound how many they have in flight, and a server that has enough says
// so with status 429, which client-go heeds.
//
// Errors: ErrNoCluster; *OptionError.
func Open(o Options) (*Cluster, error) {
	klog.LogToStderr(false) // it would write raw server text between runner commands
	klog.SetOutput(io.Discard)
	config, namespace, secrets, err := load(o)
	if err != nil {
		return nil, err
	}
	if o.As != "" {
		config.Impersonate = rest.ImpersonationConfig{UserName: o.As, Groups: o.AsGroups}
	}
	config.QPS = -1
	config.UserAgent = o.UserAgent
	config.WarningHandlerWithContext = &warnings{report: o.Warn}
	config.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		option := "kubeconfig"
		if o.Server != "" {
			option = "ca"
		}
		return nil, &OptionError{option, err}
	}
	if config.BearerTokenFile != "" || config.ExecProvider != nil {
		client.Transport = &refresh{client.Transport, config.BearerTokenFile}
	}
	c := &Cluster{Namespace: "default", Secrets: secrets, fence: &fence{next: client.Transport}}
	client.Transport = c.fence
	if namespace != "" {
		c.Namespace = namespace
	}
	if o.Namespace != "" {
		c.Namespace = o.Namespace
	}
	url, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, &OptionError{"kubeconfig", err}
	}
	url.User = nil
	c.Server = url.String()
	if c.Dynamic, err = dynamic.NewForConfigAndClient(config, client); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if c.raw, err = rest.UnversionedRESTClientForConfigAndClient(config, client); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return c, nil
}

// warnings passes on what the server warns of, such as deprecated API versions.
type warnings struct {
	report func(string)
	mu     sync.Mutex
	seen   map[string]bool
}

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	if code != 299 || text == "" || w.report == nil {
		return
	}
	w.mu.Lock()
	first := !w.seen[text]
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[text] = true
	w.mu.Unlock()
	if first {
		w.report(text)
	}
}
