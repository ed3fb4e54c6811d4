package main

import (
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
)

func TestHints(t *testing.T) {
	otherDerivation := nix.ChangedError{Attr: "packages.x86_64-linux.api", Want: "/nix/store/a.drv", Got: "/nix/store/b.drv"}
	noImage := nix.ChangedError{Attr: "packages.x86_64-linux.api", Want: "/nix/store/a.drv"}
	for _, c := range []struct {
		failure handoff.Failure
		want    string // beginning
	}{
		{handoff.Failure{Reason: "builder failed with exit code 1"}, "AGAIN -L repeats it on your machine"},
		{handoff.Failure{Reason: "builder failed with exit code 1", Derivation: "/nix/store/a.drv", Log: []string{"x"}},
			"nix log /nix/store/a.drv shows all that its builder printed; AGAIN -L repeats"},
		{handoff.Failure{Reason: "timed out after 30 seconds", Kind: handoff.FailureTimeout, Derivation: "/nix/store/a.drv", Log: []string{"x"}},
			"timeout and max-silent-time in nix.conf give it more time; nix log /nix/store/a.drv shows"},
		{handoff.Failure{Reason: otherDerivation.Error()}, "the flake is another than the one that was planned"},
		{handoff.Failure{Reason: noImage.Error()}, "the flake is another than the one that was planned"},
	} {
		if got := hint(&c.failure, "AGAIN"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: hint %q, want %q", c.failure.Reason, got, c.want)
		}
	}
}
