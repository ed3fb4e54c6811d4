package rollout

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/flakeship/flakeship/internal/cluster"
)

// server lists and watches what a test puts into it, so that a test can tell the story of a rollout, and of a connection that
// fails, step by step.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	changed  chan struct{} // closed and renewed with each event
	objects  map[string]map[string]map[string]any
	events   []change
	forgot   int // events before this one are no longer remembered
	requests []string
	refuse   string // resource that may not be listed
	cut      int    // watches to end after their first event
}

type change struct {
	resource, kind string
	object         map[string]any
}

func newServer(t *testing.T) (*server, *cluster.Cluster) {
	s := &server{changed: make(chan struct{}), objects: map[string]map[string]map[string]any{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.CloseClientConnections)
	c, err := cluster.Open(cluster.Options{Server: s.URL, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// put adds or changes an object; with kind DELETED it removes it.
func (s *server) put(t *testing.T, resource, kind, text string) {
	t.Helper()
	o := object(t, text).Object
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[resource] == nil {
		s.objects[resource] = map[string]map[string]any{}
	}
	meta := o["metadata"].(map[string]any)
	meta["namespace"], meta["resourceVersion"] = "shop", fmt.Sprint(len(s.events)+1)
	s.objects[resource][meta["name"].(string)] = o
	if kind == "DELETED" {
		delete(s.objects[resource], meta["name"].(string))
	}
	s.events = append(s.events, change{resource, kind, o})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	s.mu.Lock()
	s.requests = append(s.requests, resource)
	refused, items, version := s.refuse == resource, []any{}, len(s.events)
	for _, o := range s.objects[resource] {
		items = append(items, o)
	}
	s.mu.Unlock()
	if resource == "log" {
		fmt.Fprintf(w, "starting\nlogin of hunter22 failed, previous %s\n", r.URL.Query().Get("previous"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case refused:
		w.WriteHeader(403)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"%s is forbidden: User \"ci\" cannot list resource \"%s\" in API group \"\" in the namespace \"shop\"","reason":"Forbidden","code":403}`, resource, resource)
	case !r.URL.Query().Has("watch"):
		json.NewEncoder(w).Encode(map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": fmt.Sprint(version)}, "items": items})
	default:
		s.watch(w, r, resource)
	}
}

func (s *server) watch(w http.ResponseWriter, r *http.Request, resource string) {
	var next int
	fmt.Sscan(r.URL.Query().Get("resourceVersion"), &next)
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	for {
		s.mu.Lock()
		all, changed, forgot := s.events, s.changed, s.forgot
		s.mu.Unlock()
		if next < forgot {
			fmt.Fprintln(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}}`)
			return
		}
		for ; next < len(all); next++ {
			if all[next].resource != resource {
				continue
			}
			json.NewEncoder(w).Encode(map[string]any{"type": all[next].kind, "object": all[next].object})
			w.(http.Flusher).Flush()
			s.mu.Lock()
			cut := s.cut > 0
			s.cut--
			s.mu.Unlock()
			if cut {
				panic(http.ErrAbortHandler)
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
