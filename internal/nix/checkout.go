package nix

import (
	"context"
	"os/exec"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// Head is the commit that is checked out where a flake was planned from; empty when that is no git work tree of this machine.
func (n *Nix) Head(ctx context.Context, flake handoff.Flake) string {
	top := repository(flake.Locked, n.dir)
	if top == "" {
		return ""
	}
	env, remove, err := n.trustRepository(flake.Locked)
	if err != nil {
		return ""
	}
	defer remove()
	cmd := exec.CommandContext(ctx, "git", "-C", top, "rev-parse", "--verify", "HEAD")
	cmd.Env = append(append([]string(nil), n.env...), env...)
	text, err := cmd.Output()
	if err != nil {
		return "" // no git, or no commit: the evaluation says it better, if it comes to that
	}
	return strings.TrimSpace(string(text))
}
