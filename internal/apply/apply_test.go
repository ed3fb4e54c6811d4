package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
)

// server plays the part of an API server that keeps ConfigMaps, so that it can fail in ways a real one does not on demand.
// What server-side apply means is tested against a real one, in e2e/deploy.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	live     map[string]map[string]any
	version  int
	requests []string // method and path; with ?dryRun
	fault    func(n int, r *http.Request) (status int, reason string)
	asked    map[string]int
}

func newServer(t *testing.T, fault func(n int, r *http.Request) (int, string)) *server {
	s := &server{live: map[string]map[string]any{}, fault: fault, asked: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) open(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open(cluster.Options{Server: s.URL, Namespace: "n", Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const discovery = `{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":""},"versions":[{"version":"v1","resources":[
	{"resource":"configmaps","responseKind":{"version":"v1","kind":"ConfigMap"},"scope":"Namespaced"}]}]}]}`

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	line := r.Method + " " + r.URL.Path
	if r.URL.Query().Has("dryRun") {
		line += " dry"
	}
	s.requests = append(s.requests, line)
	s.asked[line]++
	if s.fault != nil {
		switch status, reason := s.fault(s.asked[line], r); {
		case status < 0:
			panic(http.ErrAbortHandler) // the connection ends
		case status > 0:
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d,"details":{"causes":[{"message":%[1]q,"field":"x"}]}}`, reason, reason, status)
			return
		}
	}
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/n/configmaps"), "/")
	switch {
	case r.URL.Path == "/api":
		fmt.Fprint(w, discovery)
	case r.URL.Path == "/apis":
		fmt.Fprint(w, `{"kind":"APIGroupDiscoveryList"}`)
	case r.Method == "GET" && name == "":
		s.list(w, r)
	case r.Method == "GET" && s.live[name] == nil:
		w.WriteHeader(404)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"none","reason":"NotFound","code":404}`)
	case r.Method == "GET":
		json.NewEncoder(w).Encode(s.live[name])
	case r.Method == "PATCH":
		s.patch(w, r, name)
	case r.Method == "DELETE":
		var o struct{ Preconditions struct{ UID string } }
		json.NewDecoder(r.Body).Decode(&o)
		if uid := o.Preconditions.UID; uid != "" && s.live[name]["metadata"].(map[string]any)["uid"] != uid {
			w.WriteHeader(409)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Precondition failed: UID in precondition is another","reason":"Conflict","code":409}`)
			return
		}
		delete(s.live, name)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	}
}

// list gives pages of two.
func (s *server) list(w http.ResponseWriter, r *http.Request) {
	names := []string{}
	for name := range s.live {
		names = append(names, name)
	}
	slices.Sort(names)
	begin, next := 0, ""
	fmt.Sscan(r.URL.Query().Get("continue"), &begin)
	end := len(names)
	if r.URL.Query().Has("limit") && end > begin+2 {
		end = begin + 2
		next = fmt.Sprint(end)
	}
	items := []any{}
	for _, name := range names[begin:end] {
		items = append(items, s.live[name])
	}
	json.NewEncoder(w).Encode(map[string]any{"kind": "ConfigMapList", "apiVersion": "v1", "metadata": map[string]any{"continue": next}, "items": items})
}

func (s *server) patch(w http.ResponseWriter, r *http.Request, name string) {
	body, _ := io.ReadAll(r.Body)
	var o map[string]any
	json.Unmarshal(body, &o)
	meta := o["metadata"].(map[string]any)
	before := s.live[name]
	if before != nil && cmp.Equal(before["data"], o["data"]) {
		json.NewEncoder(w).Encode(before)
		return
	}
	if before != nil {
		meta["resourceVersion"] = before["metadata"].(map[string]any)["resourceVersion"]
	}
	if !r.URL.Query().Has("dryRun") {
		s.version++
		meta["resourceVersion"] = fmt.Sprint(s.version)
		s.live[name] = o
	}
	json.NewEncoder(w).Encode(o)
}

func (s *server) writes() (n int) {
	for _, line := range s.requests {
		if strings.HasPrefix(line, "PATCH ") && !strings.HasSuffix(line, " dry") {
			n++
		}
	}
	return n
}

func configMaps(value string, names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: '%s'}\n", name, value)
	}
	return b.String()
}

func actions(changes []Change) (all []string) {
	for _, c := range changes {
		all = append(all, c.Object.GetName()+" "+string(c.Action))
	}
	return all
}

// What the cluster has is looked up in pages; pages that expire are asked for at once; who may not list is asked to get.
func TestLook(t *testing.T) {
	for name, fault := range map[string]func(int, *http.Request) (int, string){
		"pages": nil,
		"an expired page": func(n int, r *http.Request) (int, string) {
			if r.URL.Query().Has("continue") {
				return 410, "Expired"
			}
			return 0, ""
		},
		"no right to list": func(n int, r *http.Request) (int, string) {
			if r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/configmaps") {
				return 403, "Forbidden"
			}
			return 0, ""
		},
		"no right to read": func(n int, r *http.Request) (int, string) {
			if r.Method == "GET" && strings.Contains(r.URL.Path, "/configmaps") {
				return 403, "Forbidden"
			}
			return 0, ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, fault)
			c := s.open(t)
			if _, err := Objects(context.Background(), c, decode(t, configMaps("1", "a", "b", "c", "d", "e")), Options{}); err != nil {
				t.Fatal(err)
			}
			writes := s.writes()
			changes, err := Objects(context.Background(), c, decode(t, configMaps("1", "a", "b", "c", "d")+configMaps("2", "e")+configMaps("1", "f")), Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"a unchanged", "b unchanged", "c unchanged", "d unchanged", "e configured", "f created"}
			if diff := cmp.Diff(want, actions(changes)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := s.writes() - writes; n != 2 && name != "no right to read" {
				t.Errorf("%d writes, want 2", n)
			}
		})
	}
}

// Faults that pass do not show.
func TestPassingFaults(t *testing.T) {
	for _, status := range []int{-1, 429, 503} {
		s := newServer(t, func(n int, r *http.Request) (int, string) {
			if n == 1 && strings.Contains(r.URL.Path, "/configmaps") {
				return status, "ServiceUnavailable"
			}
			return 0, ""
		})
		changes, err := Objects(context.Background(), s.open(t), decode(t, configMaps("1", "a", "b")), Options{})
		if err != nil || !slices.Equal(actions(changes), []string{"a created", "b created"}) {
			t.Errorf("%d: %v, %v", status, actions(changes), err)
		}
	}
}

// A fault in the dry run of one object keeps all from being written. One in a write is told, with what was written.
func TestLastingFaults(t *testing.T) {
	for _, dry := range []bool{true, false} {
		s := newServer(t, func(n int, r *http.Request) (int, string) {
			if r.Method == "PATCH" && strings.HasSuffix(r.URL.Path, "/b") && r.URL.Query().Has("dryRun") == dry {
				return 500, "bug"
			}
			return 0, ""
		})
		changes, err := Objects(context.Background(), s.open(t), decode(t, configMaps("1", "a", "b", "c")), Options{})
		var e *Error
		if !errors.As(err, &e) || e.Written == dry || len(e.Problems) != 1 || e.Problems[0].String() != "m.yaml:7: ConfigMap/n/b: bug" {
			t.Errorf("dry %v: %v", dry, err)
		}
		want := []string{"a created", "b failed", "c created"}
		if dry {
			want = []string{"a skipped", "b failed", "c skipped"}
		}
		if !slices.Equal(actions(changes), want) || dry && s.writes() > 0 {
			t.Errorf("dry %v: %v, %d writes", dry, actions(changes), s.writes())
		}
	}
}

// What the server says of an object is masked before anything else becomes of it.
func TestMask(t *testing.T) {
	s := newServer(t, func(n int, r *http.Request) (int, string) {
		if r.Method == "PATCH" {
			return 422, "hunter22 is too weak"
		}
		return 0, ""
	})
	changes, err := Objects(t.Context(), s.open(t), decode(t, configMaps("1", "a")), Options{Mask: strings.NewReplacer("hunter22", "***").Replace})
	if err == nil || err.Error() != "m.yaml:2: ConfigMap/n/a: x: *** is too weak" || changes[0].Message != "x: *** is too weak" {
		t.Errorf("%v, %+v", err, changes)
	}
}

// Sixteen requests are in flight, and no more.
func TestInFlight(t *testing.T) {
	s := newServer(t, nil)
	var mu sync.Mutex
	now, most, full := 0, 0, make(chan struct{})
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PATCH" {
			mu.Lock()
			if now++; now > most {
				if most = now; most == 16 {
					close(full)
				}
			}
			mu.Unlock()
			select {
			case <-full:
				time.Sleep(20 * time.Millisecond) // time for one more to come
			case <-time.After(10 * time.Second):
			}
			defer func() { mu.Lock(); now--; mu.Unlock() }()
		}
		s.serve(w, r)
	}))
	defer gate.Close()
	c, err := cluster.Open(cluster.Options{Server: gate.URL, Namespace: "n", Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("c%02d", i))
	}
	if _, err := Objects(t.Context(), c, decode(t, configMaps("1", names...)), Options{}); err != nil || most != 16 || s.writes() != 50 {
		t.Errorf("%v, %d in flight, %d writes", err, most, s.writes())
	}
}

// An object that was deleted to be created again, and then cannot be, is told as something that was written.
func TestRecreateFails(t *testing.T) {
	s := newServer(t, func(n int, r *http.Request) (int, string) {
		switch {
		case r.Method == "PATCH" && r.URL.Query().Has("dryRun"):
			return 422, "data: field is immutable"
		case r.Method == "PATCH":
			return 500, "bug"
		}
		return 0, ""
	})
	s.live["a"] = map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1"}}
	manifest := strings.Replace(configMaps("1", "a"), "{name: a}", `{name: a, annotations: {flakeship.dev/recreate: "true"}}`, 1)
	_, err := Objects(context.Background(), s.open(t), decode(t, manifest), Options{})
	var e *Error
	if !errors.As(err, &e) || !e.Written || s.live["a"] != nil {
		t.Errorf("%v, live %v", err, s.live)
	}
}

// An object that is to be deleted and created again is not deleted when another has taken its name since it was looked at.
func TestRecreateRace(t *testing.T) {
	s := newServer(t, nil)
	object := func(uid string) map[string]any {
		return map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "n", "uid": uid, "resourceVersion": "1"}}
	}
	s.live["a"] = object("first")
	s.fault = func(n int, r *http.Request) (int, string) {
		if r.Method == "PATCH" && r.URL.Query().Has("dryRun") {
			s.live["a"] = object("second")
			return 422, "data: field is immutable"
		}
		return 0, ""
	}
	manifest := strings.Replace(configMaps("1", "a"), "{name: a}", `{name: a, annotations: {flakeship.dev/recreate: "true"}}`, 1)
	_, err := Objects(context.Background(), s.open(t), decode(t, manifest), Options{})
	if err == nil || s.live["a"] == nil || s.live["a"]["metadata"].(map[string]any)["uid"] != "second" {
		t.Errorf("%v, live %v", err, s.live)
	}
}

// Credentials that end are one error, not one for each object.
func TestCredentialsEnd(t *testing.T) {
	s := newServer(t, func(n int, r *http.Request) (int, string) {
		if r.Method == "PATCH" {
			return 401, "Unauthorized"
		}
		return 0, ""
	})
	_, err := Objects(context.Background(), s.open(t), decode(t, configMaps("1", "a", "b", "c")), Options{})
	var e *Error
	if errors.As(err, &e) || cluster.Diagnose(err).Class != cluster.Credentials {
		t.Errorf("%v", err)
	}
}

// When the context ends, what was written is still told.
func TestCancel(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s := newServer(t, nil)
	changes, err := Objects(ctx, s.open(t), decode(t, configMaps("1", "a", "b", "c")), Options{Workers: 1, Report: func(c Change) {
		if c.Action != handoff.ActionCreated || c.At.After(time.Now()) {
			t.Errorf("%+v", c)
		}
		stop()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if want := []string{"a created", "b skipped", "c skipped"}; !slices.Equal(actions(changes), want) || s.writes() != 1 {
		t.Errorf("%v, want %v", actions(changes), want)
	}
}
