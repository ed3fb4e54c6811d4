package substituter

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/transport"
)

var narinfos = regexp.MustCompile(`\.narinfo$`)

// The situations a single cache can be in, each with the verdict on an image "app" that refers to "lib".
func TestVerdicts(t *testing.T) {
	full := func(t *testing.T) folder { return newFolder(t).add(info(ours, "app", "lib"), info(ours, "lib", "lib")) }
	tests := []struct {
		name   string
		cache  func(*testing.T) folder
		fault  *binarycache.Fault
		params string
		state  handoff.State
		reason string // a part of it; CACHE stands for the URL
		err    error  // of this type
	}{
		{name: "cached", cache: full, state: handoff.StateCached,
			reason: "CACHE has it, closure of 2 paths, signed by ours-1"},
		{name: "missing", cache: newFolderOf, state: handoff.StateMissing, reason: "CACHE does not have it"},
		{name: "partial", cache: func(t *testing.T) folder { return newFolder(t).add(info(ours, "app", "lib")) }, state: handoff.StatePartial,
			reason: "CACHE has it, but it refers to /nix/store/" + path("lib").String() + ": CACHE does not have it"},
		{name: "unsigned", cache: func(t *testing.T) folder { return newFolder(t).add(info(none, "app")) }, state: handoff.StateUntrusted,
			reason: "CACHE has it, but " + path("app").String() + " is not signed"},
		{name: "another key", cache: func(t *testing.T) folder { return newFolder(t).add(info(theirs, "app")) }, state: handoff.StateUntrusted,
			reason: "signed by theirs-1, which is not trusted"},
		{name: "signature of something else", cache: func(t *testing.T) folder { return full(t).edit("app", "NarSize: 1000", "NarSize: 1001") },
			state: handoff.StateUntrusted, reason: "a signature of ours-1 that does not match"},
		{name: "unsigned reference", cache: func(t *testing.T) folder { return newFolder(t).add(info(ours, "app", "lib"), info(none, "lib")) },
			state: handoff.StateUntrusted, reason: "refers to /nix/store/" + path("lib").String() + ": CACHE has it, but " + path("lib").String() + " is not signed"},
		{name: "a cache trusted as a whole", cache: func(t *testing.T) folder { return newFolder(t).add(info(none, "app")) }, params: "?trusted=1",
			state: handoff.StateCached, reason: "trusted as a whole"},
		{name: "narinfo of another path", cache: func(t *testing.T) folder {
			f := newFolder(t)
			f.write(path("app").Hash()+".narinfo", info(ours, "lib").Format("/nix/store"))
			return f
		}, state: handoff.StateMissing, reason: "its narinfo is that of " + path("lib").String()},
		{name: "narinfo of the hash with another name", cache: func(t *testing.T) folder { return full(t).edit("app", "-app\nURL", "-application\nURL") },
			state: handoff.StateMissing, reason: "its narinfo is that of"},
		{name: "CR LF", cache: func(t *testing.T) folder { return full(t).edit("app", "\n", "\r\n") }, state: handoff.StateError,
			reason: ".narinfo: not a narinfo: its lines end in CR LF", err: &CorruptError{}},
		{name: "cut short", cache: func(t *testing.T) folder { return full(t).edit("app", "==\n", "") }, state: handoff.StateError,
			reason: "it breaks off", err: &CorruptError{}},
		{name: "unknown keys", cache: func(t *testing.T) folder { return full(t).edit("app", "NarSize", "Weather: fine\nNarSize") }, state: handoff.StateCached},
		{name: "too long", cache: func(t *testing.T) folder {
			return full(t).edit("app", "NarSize", "X: "+strings.Repeat("x", 1<<20)+"\nNarSize")
		}, state: handoff.StateError, reason: "longer than 1024 KiB", err: &CorruptError{}},

		{name: "401", cache: full, fault: &binarycache.Fault{Status: 401}, state: handoff.StateError,
			reason: "GET CACHE/nix-cache-info: 401 Unauthorized, no credentials were found for its host", err: &DeniedError{}},
		{name: "401 for narinfos only", cache: full, fault: &binarycache.Fault{Status: 401, Match: narinfos}, state: handoff.StateError,
			reason: "GET CACHE/" + path("app").Hash() + ".narinfo: 401 Unauthorized", err: &DeniedError{}},
		{name: "407", cache: full, fault: &binarycache.Fault{Status: 407, Match: narinfos}, state: handoff.StateError, reason: "407", err: &DeniedError{}},
		{name: "403", cache: full, fault: &binarycache.Fault{Status: 403, Match: narinfos}, state: handoff.StateError, reason: "403 Forbidden", err: &DeniedError{}},
		{name: "403 of an object store", cache: full, fault: &binarycache.Fault{Status: 403, Match: narinfos, Header: http.Header{"X-Amz-Request-Id": {"1"}}},
			state: handoff.StateMissing},
		{name: "403 of an object store for everything", cache: full, fault: &binarycache.Fault{Status: 403, Header: http.Header{"X-Amz-Request-Id": {"1"}}},
			state: handoff.StateError, reason: "403 Forbidden", err: &DeniedError{}},
		{name: "410", cache: full, fault: &binarycache.Fault{Status: 410, Match: narinfos}, state: handoff.StateMissing},
		{name: "500", cache: full, fault: &binarycache.Fault{Status: 500, Match: narinfos}, state: handoff.StateError,
			reason: "500 Internal Server Error: the cache was told to answer 500", err: &StatusError{}},
		{name: "500 from the start", cache: full, fault: &binarycache.Fault{Status: 500}, state: handoff.StateError, reason: "CACHE/nix-cache-info: 500", err: &StatusError{}},
		{name: "418", cache: full, fault: &binarycache.Fault{Status: 418, Match: narinfos}, state: handoff.StateError, reason: "418", err: &StatusError{}},
		{name: "503, then fine", cache: full, fault: &binarycache.Fault{Status: 503, Times: 2}, state: handoff.StateCached},
		{name: "429 with Retry-After", cache: full, fault: &binarycache.Fault{Status: 429, Times: 1, Header: http.Header{"Retry-After": {"0"}}}, state: handoff.StateCached},
		{name: "500 for the reference", cache: full, fault: &binarycache.Fault{Status: 500, Match: regexp.MustCompile(path("lib").Hash())},
			state: handoff.StateError, reason: "refers to /nix/store/" + path("lib").String() + ": GET CACHE/", err: &StatusError{}},
		// Whichever of the two is met first.
		{name: "a hole after a failure", cache: func(t *testing.T) folder {
			return newFolder(t).add(info(ours, "app", "lib", "hole"), info(ours, "hole"))
		},
			fault: &binarycache.Fault{Status: 500, Match: regexp.MustCompile(path("hole").Hash())}, state: handoff.StatePartial,
			reason: path("lib").String()},
		{name: "a hole before a failure", cache: func(t *testing.T) folder {
			return newFolder(t).add(info(ours, "app", "lib", "hole"), info(ours, "lib"))
		},
			fault: &binarycache.Fault{Status: 500, Match: regexp.MustCompile(path("lib").Hash())}, state: handoff.StatePartial,
			reason: path("hole").String()},
		{name: "hang", cache: full, fault: &binarycache.Fault{Hang: true}, state: handoff.StateError,
			reason: "GET CACHE/nix-cache-info: no complete answer within", err: &transport.TimeoutError{}},
		{name: "hang at one narinfo", cache: full, fault: &binarycache.Fault{Hang: true, Match: narinfos}, state: handoff.StateError,
			reason: "no complete answer within", err: &transport.TimeoutError{}},
		{name: "one stall", cache: full, fault: &binarycache.Fault{Hang: true, Match: narinfos, Times: 1}, state: handoff.StateCached},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := test.cache(t).serve()
			srv.Fail(test.fault)
			o := Options{}
			if test.fault != nil && test.fault.Hang {
				o.Timeout = 300 * time.Millisecond
			}
			v := check(t, open(t, o, srv.URL+test.params), "app")[0]
			expect(t, v, test.state, strings.ReplaceAll(test.reason, "CACHE", srv.URL), test.err)
			if v.State == handoff.StateCached && test.params == "" && (v.Cache != srv.URL || v.NarSize != 1000 || v.Download != 200) {
				t.Errorf("cache %q, NAR %d, download %d", v.Cache, v.NarSize, v.Download)
			}
			if len(v.Answers) != 1 || v.Answers[0].Cache != srv.URL || v.Answers[0].State != test.state {
				t.Errorf("answers %+v, want one of state %s", v.Answers, test.state)
			}
		})
	}
}

func newFolderOf(t *testing.T) folder { return newFolder(t) }

func expect(t *testing.T, v Verdict, state handoff.State, reason string, err error) {
	t.Helper()
	if v.State != state || !strings.Contains(v.Reason, reason) {
		t.Errorf("%s, %q, want %s, %q", v.State, v.Reason, state, reason)
	}
	if isError := state == handoff.StateError; (v.Err != nil) != isError || (v.Failed != "") != isError {
		t.Errorf("state %s with error %v of cache %q", v.State, v.Err, v.Failed)
	}
	if err != nil {
		found := false
		for e := v.Err; e != nil; e = errors.Unwrap(e) {
			found = found || fmt.Sprintf("%T", e) == fmt.Sprintf("%T", err)
		}
		if !found {
			t.Errorf("error %T %v, want %T", v.Err, v.Err, err)
		}
	}
}

func TestRefusedConnection(t *testing.T) {
	srv := newFolder(t).serve()
	srv.Close()
	v := check(t, open(t, Options{}, srv.URL), "app")[0]
	expect(t, v, handoff.StateError, "GET "+srv.URL+"/nix-cache-info: dial tcp", &RequestError{})
	if !strings.Contains(v.Reason, "connection refused") {
		t.Errorf("reason %q", v.Reason)
	}
}

// A cache that nobody has written to yet has no nix-cache-info.
func TestNewCache(t *testing.T) {
	var warnings warnings
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	v := check(t, open(t, Options{Warnf: warnings.add}, srv.URL), "app")[0]
	expect(t, v, handoff.StateMissing, "has no nix-cache-info yet", nil)
	if len(warnings.lines) != 1 || !strings.Contains(warnings.lines[0], srv.URL+" has no nix-cache-info") {
		t.Errorf("warnings %q", warnings.lines)
	}
}

func TestNoCaches(t *testing.T) {
	expect(t, check(t, open(t, Options{}), "app")[0], handoff.StateMissing, "no cache is configured", nil)
}

// An object store's 403 is told once, not for each path.
func TestForbiddenIsTold(t *testing.T) {
	var warnings warnings
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nix-cache-info" {
			fmt.Fprintln(w, "StoreDir: /nix/store")
			return
		}
		code := "AccessDenied"
		if strings.Contains(r.URL.Path, path("secret").Hash()) {
			code = "InvalidAccessKeyId"
		}
		w.WriteHeader(403)
		fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code></Error>", code)
	}))
	defer srv.Close()
	s := open(t, Options{Warnf: warnings.add}, srv.URL)
	for _, v := range check(t, s, "a", "b", "c") {
		expect(t, v, handoff.StateMissing, "does not have it", nil)
	}
	if len(warnings.lines) != 1 || !strings.Contains(warnings.lines[0], "403") {
		t.Errorf("warnings %q", warnings.lines)
	}
	expect(t, check(t, s, "secret")[0], handoff.StateError, "403", &DeniedError{})
}

type warnings struct {
	mu    sync.Mutex
	lines []string
}

func (w *warnings) add(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func TestSeveralCaches(t *testing.T) {
	broken := func(t *testing.T) string {
		srv := newFolder(t).serve()
		srv.Fail(&binarycache.Fault{Status: 500, Match: narinfos})
		return srv.URL
	}
	serve := func(f folder) string { return f.serve().URL }
	tests := []struct {
		name    string
		caches  func(*testing.T) []string
		state   handoff.State
		reason  string // CACHE0, CACHE1 stand for the URLs
		answers []handoff.State
	}{
		{"a reference in another cache", func(t *testing.T) []string {
			return []string{serve(newFolder(t).add(info(ours, "app", "lib"))), serve(newFolder(t).add(info(ours, "lib")))}
		}, handoff.StateCached, "CACHE0 has it, closure of 2 paths", []handoff.State{handoff.StateCached}},
		{"a reference in an earlier cache", func(t *testing.T) []string {
			return []string{serve(newFolder(t).add(info(ours, "lib"))), serve(newFolder(t).add(info(ours, "app", "lib")))}
		}, handoff.StateCached, "CACHE1 has it", []handoff.State{handoff.StateMissing, handoff.StateCached}},
		{"in none", func(t *testing.T) []string { return []string{serve(newFolder(t)), serve(newFolder(t))} },
			handoff.StateMissing, "no cache has it", []handoff.State{handoff.StateMissing, handoff.StateMissing}},
		{"a failure that another cache makes up for", func(t *testing.T) []string { return []string{broken(t), serve(newFolder(t).add(info(ours, "app")))} },
			handoff.StateCached, "CACHE1 has it", []handoff.State{handoff.StateError, handoff.StateCached}},
		{"a failure that may hide it", func(t *testing.T) []string { return []string{serve(newFolder(t)), broken(t)} },
			handoff.StateError, "CACHE1/", []handoff.State{handoff.StateMissing, handoff.StateError}},
		{"untrusted here, signed there", func(t *testing.T) []string {
			return []string{serve(newFolder(t).add(info(theirs, "app"))), serve(newFolder(t).add(info(ours, "app")))}
		}, handoff.StateCached, "CACHE1 has it", []handoff.State{handoff.StateUntrusted, handoff.StateCached}},
		{"untrusted here, absent there", func(t *testing.T) []string {
			return []string{serve(newFolder(t)), serve(newFolder(t).add(info(theirs, "app")))}
		}, handoff.StateUntrusted, "CACHE1 has it, but", []handoff.State{handoff.StateMissing, handoff.StateUntrusted}},
		{"untrusted here, a failure there", func(t *testing.T) []string { return []string{serve(newFolder(t).add(info(theirs, "app"))), broken(t)} },
			handoff.StateError, "CACHE1/", []handoff.State{handoff.StateUntrusted, handoff.StateError}},
		{"a hole in all of them", func(t *testing.T) []string {
			return []string{serve(newFolder(t).add(info(ours, "app", "lib"))), serve(newFolder(t))}
		},
			handoff.StatePartial, "refers to /nix/store/" + path("lib").String() + ": no cache has it", []handoff.State{handoff.StatePartial}},
		{"a reference that may be in the failing cache", func(t *testing.T) []string {
			return []string{serve(newFolder(t).add(info(ours, "app", "lib"))), broken(t)}
		},
			handoff.StateError, "CACHE1/" + path("lib").Hash(), []handoff.State{handoff.StateError}},
		{"the same cache twice", func(t *testing.T) []string { url := serve(newFolder(t)); return []string{url, url + "/"} },
			handoff.StateMissing, "CACHE0 does not have it", []handoff.State{handoff.StateMissing}},
		{"a folder and a server", func(t *testing.T) []string {
			return []string{"file://" + newFolder(t).add(info(ours, "app", "lib")).dir, serve(newFolder(t).add(info(ours, "lib")))}
		}, handoff.StateCached, "CACHE0 has it", []handoff.State{handoff.StateCached}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			urls := test.caches(t)
			v := check(t, open(t, Options{}, urls...), "app")[0]
			expect(t, v, test.state, strings.NewReplacer("CACHE0", urls[0], "CACHE1", urls[len(urls)-1]).Replace(test.reason), nil)
			var got []handoff.State
			for _, a := range v.Answers {
				got = append(got, a.State)
			}
			if diff := cmp.Diff(test.answers, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	urls := map[string]string{}
	for name, text := range map[string]string{
		"forty": "StoreDir: /nix/store\nPriority: 40\n", "ten": "StoreDir: /nix/store\r\nPriority: 10\r\n", "none": "StoreDir: /nix/store", "also-none": "WantMassQuery: 0\n",
	} {
		f := newFolder(t)
		f.write("nix-cache-info", text)
		urls[name] = "file://" + f.dir
	}
	s := open(t, Options{}, urls["forty"], urls["ten"], urls["none"], urls["also-none"]+"?priority=30")
	want := []string{urls["none"], urls["ten"], urls["also-none"], urls["forty"]}
	if diff := cmp.Diff(want, s.Caches()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// Each hash is asked for once per cache, however many images need it, and never with HEAD.
func TestRequestEconomy(t *testing.T) {
	const images, libs = 50, 20
	f := newFolder(t)
	var names, refs []string
	for i := range libs {
		lib := fmt.Sprintf("lib%d", i)
		f.add(info(ours, lib, refs...)) // each refers to all before it
		refs = append(refs, lib)
	}
	for i := range images {
		names = append(names, fmt.Sprintf("app%d", i))
		if i%2 == 0 {
			f.add(info(ours, names[i], refs...))
		}
	}
	srv := f.serve()
	s := open(t, Options{}, srv.URL)
	for range 2 {
		for i, v := range check(t, s, append(names, names...)...) {
			want := handoff.StateMissing
			if i%2 == 0 {
				want = handoff.StateCached
			}
			if v.State != want {
				t.Fatalf("image %d: %s, %s", i, v.State, v.Reason)
			}
		}
	}
	asked := map[string]int{}
	for _, r := range srv.Requests() {
		asked[r.Path]++
		if r.Method != http.MethodGet || asked[r.Path] > 1 {
			t.Errorf("%s %s, for the %d. time", r.Method, r.Path, asked[r.Path])
		}
	}
	if len(asked) != images+libs+1 {
		t.Errorf("%d requests, want one for each of %d images and %d libraries, and nix-cache-info", len(asked), images, libs)
	}
}

// A cache that stops answering costs a time limit or two, not one for each path.
func TestDeadCacheIsGivenUp(t *testing.T) {
	for name, fault := range map[string]*binarycache.Fault{
		"hangs":   {Hang: true, Match: narinfos},
		"is busy": {Status: 503, Match: narinfos, Header: http.Header{"Retry-After": {"0"}}},
		"denies":  {Status: 401, Match: narinfos},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFolder(t).serve()
			srv.Fail(fault)
			var names []string
			for i := range 1000 {
				names = append(names, fmt.Sprint("app", i))
			}
			s := open(t, Options{Timeout: 300 * time.Millisecond}, srv.URL)
			start := time.Now()
			for _, v := range check(t, s, names...) {
				if v.State != handoff.StateError || v.Err == nil || !strings.Contains(v.Reason, srv.URL) {
					t.Fatalf("%s, %q", v.State, v.Reason)
				}
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %s for 1000 paths", took)
			}
			if n := len(srv.Requests()); n > 600 {
				t.Errorf("%d requests", n)
			}
		})
	}
}
