//go:build !linux

package action

// endWithParent does nothing: only Linux tells a process that its parent has died.
func endWithParent() {}
