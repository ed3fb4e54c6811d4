package caches_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// A machine that is reached by ssh, as builders are: by Nix's old protocol and its current one.
func TestSSH(t *testing.T) {
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd" // not on the PATH of people
	}
	w := newWorld(t)
	dir := w.dir
	for _, key := range []string{"host", "runner", "stranger"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	// Whoever comes in with the runner's key gets the builder's store.
	enter := "#!/bin/sh\n"
	for _, kv := range w.builder.Env {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "NIX_") || name == "PATH" || name == "HOME" || name == "XDG_CACHE_HOME" {
			enter += fmt.Sprintf("export %s='%s'\n", name, value)
		}
	}
	enter += "exec sh -c \"$SSH_ORIGINAL_COMMAND\"\n"
	public, err := os.ReadFile(filepath.Join(dir, "runner.pub"))
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"enter":           enter,
		"authorized_keys": fmt.Sprintf("command=\"sh %s/enter\" %s", dir, public),
		"sshd_config": fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %s/host\nAuthorizedKeysFile %s/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\n"+
			"PasswordAuthentication no\nKbdInteractiveAuthentication no\n", port, dir, dir),
		"ssh_config": fmt.Sprintf("Host builder\n HostName 127.0.0.1\n Port %s\n User %s\n IdentityFile %s/runner\nHost elsewhere\n HostName 127.0.0.1\n Port %s\n User %s\n"+
			" IdentityFile %s/stranger\nHost *\n IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile /dev/null\n StrictHostKeyChecking no\n LogLevel ERROR\n",
			port, me.Username, dir, port, me.Username, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where it separates privileges; the package's service makes it
			t.Fatal(err)
		}
	}
	start(t, port, exec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")))

	options := "NIX_SSHOPTS=-F " + filepath.Join(dir, "ssh_config")
	for _, scheme := range []string{"ssh-ng", "ssh"} {
		code, said := w.check(scheme+"://builder", options)
		w.expect(scheme, code, said, 0, `^api +cached +`+scheme+`://builder has it, closure of 2 paths, signed by ours-1$`, `^web +missing`)
	}
	code, said := w.check("ssh-ng://elsewhere", options)
	w.expect("a key it does not know", code, said, 1, `error: 2 images not decided .*: ask ssh-ng://elsewhere: `, `hint: nix path-info --store`)
}
