package substituter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

var none narinfo.SecretKey

func TestCredentials(t *testing.T) {
	srv := newFolder(t).add(info(ours, "app")).serve()
	srv.User, srv.Password = "ci", "hunter 2"
	netrc, err := ParseNetrc("machine other.test login ci password wrong\nmachine 127.0.0.1\n  login ci\n  password \"hunter 2\"\n")
	if err != nil {
		t.Fatal(err)
	}
	withUser := strings.Replace(srv.URL, "//", "//ci@", 1)
	withPassword := strings.Replace(srv.URL, "//", "//ci:hunter%202@", 1)
	wrong := strings.Replace(srv.URL, "//", "//ci:hunter3@", 1)
	for _, test := range []struct {
		name   string
		netrc  Netrc
		url    string
		state  handoff.State
		reason string
	}{
		{"netrc", netrc, srv.URL, handoff.StateCached, ""},
		{"netrc for the URL's user", netrc, withUser, handoff.StateCached, ""},
		{"URL", Netrc{}, withPassword, handoff.StateCached, ""},
		{"none", Netrc{}, srv.URL, handoff.StateError, "401 Unauthorized, no credentials were found for its host"},
		{"wrong ones", netrc, wrong, handoff.StateError, "401 Unauthorized, the credentials sent are refused"},
	} {
		s := open(t, Options{Netrc: test.netrc}, test.url)
		v := check(t, s, "app")[0]
		expect(t, v, test.state, test.reason, nil)
		if text := fmt.Sprint(v, s.Caches()); strings.Contains(text, "hunter") || strings.Contains(text, "ci@") {
			t.Errorf("%s: the password shows in %s", test.name, text)
		}
	}
}

// Who redirects to another host does not learn the password of this one, nor does the other host.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	var mu sync.Mutex
	leaked := ""
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		leaked += r.Header.Get("Authorization")
		http.NotFound(w, r)
	}))
	defer other.Close()
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nix-cache-info" {
			fmt.Fprintln(w, "StoreDir: /nix/store")
			return
		}
		http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusFound)
	}))
	defer srv.Close()
	netrc, _ := ParseNetrc("machine 127.0.0.1 login ci password hunter2")
	expect(t, check(t, open(t, Options{Netrc: netrc}, srv.URL), "app")[0], handoff.StateMissing, "", nil)
	if leaked != "" {
		t.Errorf("the other host got %q", leaked)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, test := range []struct{ url, reason string }{
		{"cache.example.org", "no scheme"},
		{"/var/cache", "no scheme"},
		{"s3://", "no bucket"},
		{"s3://bucket?endpoint=ftp://host", "endpoint"},
		{"s3://bucket?endpoint=user:hunter2@host", "endpoint"},
		{"ssh-ng://builder", "scheme ssh-ng"},
		{"https://", "no host"},
		{"file://cache", "no absolute path"},
		{"http://user:hunter2@[::1", "no URL"},
		{"https://user:hunter2@cache.example.org?priority=x", "priority"},
		{"https://cache.example.org?a=%zz", "parameters"},
	} {
		err := Validate([]string{test.url}, Options{})
		var bad *URLError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.reason) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Validate(%q): %v", test.url, err)
		}
	}
	_, err := Open(t.Context(), []string{"a", "b"}, Options{})
	if err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("not both errors: %v", err)
	}
}

func TestCacheOfAnotherStore(t *testing.T) {
	f := newFolder(t)
	f.write("nix-cache-info", "StoreDir: /gnu/store\n")
	var wrong *StoreDirError
	if _, err := Open(t.Context(), []string{"file://" + f.dir}, Options{}); !errors.As(err, &wrong) || wrong.Theirs != "/gnu/store" || wrong.Ours != "/nix/store" {
		t.Errorf("error %v", err)
	}
	if _, err := Open(t.Context(), []string{"file://" + f.dir}, Options{StoreDir: "/gnu/store"}); err != nil {
		t.Errorf("its own store: %v", err)
	}
}

// A web server that gives its start page for every name is no cache in which everything is corrupt, or missing.
func TestNotACache(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "<!DOCTYPE html>\n<html>") }))
	defer srv.Close()
	expect(t, check(t, open(t, Options{}, srv.URL), "app")[0], handoff.StateError, srv.URL+"/nix-cache-info: it has none of StoreDir", &CorruptError{})
}

func TestFolders(t *testing.T) {
	expect(t, check(t, open(t, Options{}, "file:///nonexistent"), "app")[0], handoff.StateMissing, "no nix-cache-info yet", nil)
	f := newFolder(t)
	if err := os.Mkdir(filepath.Join(f.dir, path("app").Hash()+".narinfo"), 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, check(t, open(t, Options{}, "file://"+f.dir), "app")[0], handoff.StateError, ".narinfo: is a directory", &RequestError{})
}

// What was seen before the context ended stays seen; the rest is an error.
func TestCancel(t *testing.T) {
	srv := newFolder(t).add(info(ours, "app")).serve()
	s := open(t, Options{}, srv.URL)
	check(t, s, "app")
	srv.Fail(&binarycache.Fault{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	verdicts := s.Check(ctx, []storepath.Path{path("app"), path("other")})
	if time.Since(start) > 30*time.Second {
		t.Errorf("returned after %s", time.Since(start))
	}
	expect(t, verdicts[0], handoff.StateCached, "", nil)
	expect(t, verdicts[1], handoff.StateError, "deadline", nil)
}

func TestNetrc(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"one line", "machine a.test login u password p", "u:p"},
		{"several lines and tabs", "machine a.test\r\n\tlogin u\r\n\tpassword p\r\n", "u:p"},
		{"the first entry", "machine a.test login u password p machine a.test login v password q", "u:p"},
		{"another host", "machine b.test login u password p", ""},
		{"a host's case", "machine A.Test login u password p", "u:p"},
		{"default", "machine b.test login u password p\ndefault login d password e", "d:e"},
		{"comments", "# machine a.test login x password y\nmachine a.test # mine\nlogin u password p#1", "u:p#1"},
		{"quotes", `machine a.test login u password "p \"q\" \\"`, `u:p "q" \`},
		{"a macro", "machine b.test login x password y\nmacdef init\nmachine a.test login z password z\n\nmachine a.test login u password p", "u:p"},
		{"account is passed over", "machine a.test login u account x password p", "u:p"},
		{"empty", "", ""},
	} {
		n, err := ParseNetrc(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := ""
		if u := n.credentials("a.test", nil); u != nil {
			p, _ := u.Password()
			got = u.Username() + ":" + p
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	for _, text := range []string{"machine", "login u", "hello there", "machine a.test login"} {
		if _, err := ParseNetrc(text); err == nil {
			t.Errorf("ParseNetrc(%q) gives no error", text)
		}
	}
	if _, err := ParseNetrc("machine a.test hunter2 x"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a misplaced password shows: %v", err)
	}
	if _, err := LoadNetrc(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzNetrc(f *testing.F) {
	f.Add("machine a.test login u password \"p\\\"\" # x\nmacdef m\n\ndefault login d password e")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseNetrc(text)
		if err == nil {
			n.credentials("a.test", nil)
		}
	})
}

func FuzzCacheInfo(f *testing.F) {
	f.Add("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n")
	f.Add("StoreDir:/nix/store\r\nPriority: 99999999999999999999\nx\n:\n")
	f.Fuzz(func(t *testing.T, text string) {
		info, err := parseCacheInfo(text)
		if err == nil && strings.TrimSpace(info.storeDir) != info.storeDir {
			t.Errorf("parseCacheInfo(%q) = %+v", text, info)
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, text := range []string{"https://u:p@cache.example.org/x?priority=1&trusted=1", "file:///var/cache", "s3://b", "s3://b.c?endpoint=h:1&scheme=http&priority=3", "//", "http://[::1]:80", "http://a?", "file:///?#"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text, clients{}, Options{StoreDir: storepath.DefaultDir})
		if err == nil && (strings.Contains(c.name, "?") && !strings.HasPrefix(c.name, "s3:") || strings.HasSuffix(c.name, "/") && c.name != "file://") {
			t.Errorf("cache %q is called %q", text, c.name)
		}
	})
}
