package upload_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/upload"
)

// Whoever reads the cache at any moment finds nothing whose closure is not there, however late a reference is.
func TestReferencesComeFirst(t *testing.T) {
	w := newWorld(t)
	// The one that all others wait for is refused three times, which takes longer than all the others.
	w.cache.Fail(&binarycache.Fault{Match: regexp.MustCompile(w.lib.StorePath.Hash()), Methods: []string{http.MethodPut}, Status: http.StatusBadGateway, Times: 3})
	if stats := w.copied(); stats.Written != 3 || stats.Bytes == 0 {
		t.Errorf("stats = %+v", stats)
	}
	puts := w.puts()
	at := func(name string) int { return slices.Index(puts, name) }
	for _, info := range w.closure {
		own := at(info.StorePath.Hash() + ".narinfo")
		if nar := at(w.described(info).URL); nar < 0 || own < nar {
			t.Errorf("%s: narinfo was written as number %d, its NAR as %d", info.StorePath, own, nar)
		}
		for _, ref := range info.References {
			if before := at(ref.Hash() + ".narinfo"); ref != info.StorePath && (before < 0 || own < before) {
				t.Errorf("%s was written as number %d, %s that it refers to as %d", info.StorePath, own, ref, before)
			}
		}
	}
	w.whole(3)
	// A second run has nothing to write.
	if stats := w.copied(); stats != (upload.Stats{}) || len(w.puts()) > 0 {
		t.Errorf("a second run: %+v", stats)
	}
}

// A reference that cannot be written keeps out all that refers to it; when the cache is well again the same Uploader goes on from there.
func TestAfterAFailure(t *testing.T) {
	w := newWorld(t)
	u := w.uploader(nil)
	w.cache.Fail(&binarycache.Fault{Match: regexp.MustCompile(w.tool.StorePath.Hash()), Methods: []string{http.MethodPut}, Status: http.StatusNotImplemented})
	err := u.Closure(t.Context(), w.closure)
	if failed := new(upload.PathError); !errors.As(err, &failed) || failed.Path != storepath.DefaultDir.Join(w.tool.StorePath) ||
		!errors.As(err, new(*substituter.StatusError)) || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("Closure = %v, want one error of %s", err, w.tool.StorePath)
	}
	w.whole(1)
	w.cache.Fail(nil)
	w.puts()
	if err := u.Closure(t.Context(), w.closure); err != nil {
		t.Error(err)
	}
	if again := w.puts(); slices.Contains(again, w.lib.StorePath.Hash()+".narinfo") {
		t.Errorf("what was done is done again: %q", again)
	}
	w.whole(3)
}

// When the time is up, that is the error, whatever the cache did; nothing is left that only a part of which is there.
func TestDeadline(t *testing.T) {
	for _, hangs := range []string{"nar/", `\.narinfo$`} {
		w := newWorld(t)
		u := w.uploader(nil)
		w.cache.Fail(&binarycache.Fault{Match: regexp.MustCompile(hangs), Methods: []string{http.MethodPut}, Hang: true})
		late := errors.New("it is late")
		ctx, stop := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- u.Closure(ctx, w.closure) }()
		await(t, "a request that hangs", func() bool { return w.cache.Hanging() > 0 })
		stop(late)
		if err := <-done; !errors.Is(err, late) || err.Error() != late.Error() {
			t.Errorf("Closure = %v, want the cause of the context's end alone", err)
		}
		await(t, "the end of all requests", func() bool { return w.cache.Hanging() == 0 })
		w.whole(0)
	}
}

func TestUnsignedIsRepaired(t *testing.T) {
	w := newWorld(t)
	u := w.uploader(func(o *upload.Options) { o.Key = nil })
	if err := u.Closure(t.Context(), w.closure); !errors.As(err, new(*upload.UnsignedError)) {
		t.Errorf("a copy without key = %v, want *UnsignedError", err)
	}
	if err := w.uploader(func(o *upload.Options) { o.Key = nil }).Closure(t.Context(), []*narinfo.NarInfo{w.lib}); !errors.As(err, new(*upload.UnsignedError)) {
		t.Errorf("once more without key = %v, want *UnsignedError", err)
	}
	w.puts()
	stats := w.copied()
	if stats.Signed < 1 || stats.Signed+stats.Written != 3 {
		t.Errorf("stats = %+v, want what was there signed", stats)
	}
	for _, name := range w.puts() {
		if name == w.described(w.lib).URL {
			t.Error("a NAR that was there was sent again")
		}
	}
	w.whole(3)
}

// What a cache says it has is looked at: a narinfo of which the NAR is gone, one that cannot be read, one of another build that
// refers to what nobody gives it.
func TestDamageIsRepaired(t *testing.T) {
	for name, damage := range map[string]func(w *world) error{
		"no NAR":         func(w *world) error { return os.Remove(filepath.Join(w.cache.Dir, w.described(w.lib).URL)) },
		"half a narinfo": func(w *world) error { return os.Truncate(w.file(w.tool), 100) },
		"other references": func(w *world) error {
			other := w.described(w.tool)
			other.References = append(other.References, w.put("gone").StorePath)
			other.SortReferences()
			other.Sign(w.key, storepath.DefaultDir)
			return os.WriteFile(w.file(w.tool), []byte(other.Format(storepath.DefaultDir)), 0o644)
		},
	} {
		w := newWorld(t)
		w.copied()
		if err := damage(w); err != nil {
			t.Fatal(err)
		}
		if stats := w.copied(); stats.Written != 1 {
			t.Errorf("%s: %+v, want one path written anew", name, stats)
		}
		w.whole(3)
	}
}

// A cache that takes everything and keeps some of it is found out.
func TestWhatIsLostIsMissed(t *testing.T) {
	for lost, want := range map[string]string{
		`^/nar/`:        "its NAR is not there",
		`\.narinfo$`:    "its narinfo is not there",
		"the signature": "the signature is not there",
	} {
		w := newWorld(t)
		u := w.uploader(nil)
		pattern := regexp.MustCompile(lost)
		w.loses = func(r *http.Request) bool { return r.Method == http.MethodPut && pattern.MatchString(r.URL.Path) }
		if lost == "the signature" { // somebody else writes the path after us, unsigned
			w.loses = func(r *http.Request) bool {
				if r.Method == http.MethodPut && path.Base(r.URL.Path) == w.lib.StorePath.Hash()+".narinfo" {
					bare := *w.lib
					bare.URL = "nar/0.nar"
					os.WriteFile(filepath.Join(w.cache.Dir, bare.URL), nil, 0o644)
					os.WriteFile(w.file(w.lib), []byte(bare.Format(storepath.DefaultDir)), 0o644)
					return true
				}
				return false
			}
		}
		err := u.Closure(t.Context(), []*narinfo.NarInfo{w.lib})
		if found := new(upload.LostError); !errors.As(err, &found) || found.What != want {
			t.Errorf("of a cache that loses %s: %v, want %q", lost, err, want)
		}
	}
}

// A cache that refuses is not asked for each of a thousand paths.
func TestRefusalIsTold(t *testing.T) {
	w := newWorld(t)
	closure := []*narinfo.NarInfo{w.lib}
	for i := range 300 {
		closure = append(closure, w.put(fmt.Sprint("leaf-", i)))
	}
	u := w.uploader(nil)
	w.cache.Requests()
	w.cache.Fail(&binarycache.Fault{Methods: []string{http.MethodPut}, Status: http.StatusForbidden})
	if err := u.Closure(t.Context(), closure); !errors.As(err, new(*substituter.DeniedError)) {
		t.Errorf("Closure = %v, want *DeniedError", err)
	}
	asked := 0
	for _, r := range w.cache.Requests() {
		if r.Method == http.MethodPut {
			asked++
		}
	}
	if asked == 0 || asked > 100 {
		t.Errorf("%d PUTs were refused: want the ones in flight when the first was", asked)
	}
}

// Nothing is written of a path whose files are not what the store says.
func TestChangedFiles(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.physical(storepath.DefaultDir.Join(w.lib.StorePath)), []byte("this is a lie\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	u := w.uploader(nil)
	if err := u.Closure(t.Context(), w.closure); !errors.As(err, new(*upload.ChangedError)) {
		t.Errorf("Closure = %v, want *ChangedError", err)
	}
	w.whole(0)
}

// Closures that are copied at the same time share the work on what they share.
func TestSharedPathsAreCopiedOnce(t *testing.T) {
	w := newWorld(t)
	u := w.uploader(nil)
	var all sync.WaitGroup
	for i := range 8 {
		own := w.put(fmt.Sprint("app-", i), w.tool, w.lib)
		all.Go(func() {
			if err := u.Closure(t.Context(), []*narinfo.NarInfo{own, w.tool, w.lib}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if stats, puts := u.Stats(), w.puts(); stats.Written != 10 || len(puts) != 2*10 {
		t.Errorf("%d written, with %d requests, want 10 and 20: %q", stats.Written, len(puts), puts)
	}
	w.whole(10)
}

// What another cache serves, with all it refers to, is left to it; half a closure is not.
func TestOthersAreLeftTheirs(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	if err := other.uploader(nil).Closure(t.Context(), []*narinfo.NarInfo{other.lib, other.tool}); err != nil {
		t.Fatal(err)
	}
	with := func() *upload.Uploader {
		set, err := substituter.Open(t.Context(), []string{other.url}, substituter.Options{Keys: []narinfo.PublicKey{w.key.Public()}})
		if err != nil {
			t.Fatal(err)
		}
		return w.uploader(func(o *upload.Options) { o.Others = set })
	}
	u := with()
	if err := u.Closure(t.Context(), w.closure); err != nil {
		t.Fatal(err)
	}
	if stats := u.Stats(); stats.Written != 1 || stats.Left != 2 || w.described(w.tool) != nil {
		t.Errorf("stats = %+v, want app written and what it refers to left", stats)
	}
	if err := os.Remove(other.file(other.lib)); err != nil {
		t.Fatal(err)
	}
	u = with()
	if err := u.Closure(t.Context(), w.closure); err != nil {
		t.Fatal(err)
	}
	if stats := u.Stats(); stats.Written != 2 || stats.Left != 0 {
		t.Errorf("stats = %+v, want both written that the other cache does not serve", stats)
	}
	w.whole(3)
}
