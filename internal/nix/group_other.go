//go:build !linux

package nix

import "syscall"

// group puts a child process into a process group of its own: a terminal's Ctrl-C must not reach nix before us, and git, ssh and
// build hooks end with it.
func group() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// adopt and killOrphans are for Linux, which has a way to find what lost its parent.
func adopt()       {}
func killOrphans() {}
