package substituter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// A store behind the installed Nix is asked twice, whatever the depth of the closures, and its word is not taken for a signature.
func TestOtherStores(t *testing.T) {
	infos := map[storepath.Path]*narinfo.NarInfo{}
	for _, n := range []*narinfo.NarInfo{info(ours, "app", "lib"), info(ours, "lib", "libc"), info(ours, "libc"), info(none, "unsigned", "libc")} {
		infos[n.StorePath] = n
	}
	asked := 0
	ask := func(ctx context.Context, store string, paths []storepath.Path, closure bool) ([]*narinfo.NarInfo, error) {
		if asked++; store != "ssh-ng://ci@builder?remote-store=x" {
			t.Errorf("asked %s", store)
		}
		var answer []*narinfo.NarInfo
		for _, n := range infos {
			if closure || slices.Contains(paths, n.StorePath) {
				answer = append(answer, n)
			}
		}
		return answer, nil
	}
	s := open(t, Options{Ask: ask, VerifyNARs: true}, "ssh-ng://ci@builder?remote-store=x&priority=10")
	v := check(t, s, "app", "absent", "unsigned")
	expect(t, v[0], handoff.StateCached, "ssh-ng://ci@builder?remote-store=x has it, closure of 3 paths", nil)
	expect(t, v[1], handoff.StateMissing, "does not have it", nil)
	expect(t, v[2], handoff.StateUntrusted, "is not signed", nil)
	if check(t, s, "lib"); asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}

	down := func(context.Context, string, []storepath.Path, bool) ([]*narinfo.NarInfo, error) {
		return nil, errors.New("connection refused")
	}
	v = check(t, open(t, Options{Ask: down}, "ssh://builder"), "app")
	expect(t, v[0], handoff.StateError, "ask ssh://builder: connection refused", &StoreError{})

	hung := func(ctx context.Context, _ string, _ []storepath.Path, _ bool) ([]*narinfo.NarInfo, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("the step's time is up"))
	v = open(t, Options{Ask: hung}, "ssh://builder").Check(ctx, []storepath.Path{path("app")})
	if v[0].State != handoff.StateError || !strings.Contains(v[0].Reason, "time is up") {
		t.Errorf("%s, %s", v[0].State, v[0].Reason)
	}
}
