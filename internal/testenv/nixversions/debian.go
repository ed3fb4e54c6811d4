package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// keyring is what Debian's package lists are checked against.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// prepare returns a folder with the programs nix, nix-store and nix-daemon of a Debian suite.
func prepare(ctx context.Context, suite string) (bin string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "flakeship", "nix-of-"+suite)
	bin = filepath.Join(dir, "bin")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	mirror, err := debianMirror()
	if err != nil {
		return "", err
	}
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	say("downloading the Nix of Debian %s to %s", suite, dir)
	temp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := unpack(ctx, temp, suite, mirror); err != nil {
		return "", err
	}
	if err := writePrograms(temp); err != nil {
		return "", err
	}
	return bin, errors.Join(os.RemoveAll(dir), os.Rename(temp, dir))
}

// mirrors are package archives of Debian as a machine's own settings name them.
var mirrors = regexp.MustCompile(`(?m)^(?:URIs:|deb\s+(?:\[[^\]]*\])?)\s*(\S+/debian)/?(?:\s|$)`)

// debianMirror is where this machine gets its packages from; FLAKESHIP_DEBIAN_MIRROR names another place, or one for a machine
// that is no Debian.
func debianMirror() (string, error) {
	if url := os.Getenv("FLAKESHIP_DEBIAN_MIRROR"); url != "" {
		return url, nil
	}
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, file := range append(files, "/etc/apt/sources.list") {
		text, _ := os.ReadFile(file)
		if m := mirrors.FindSubmatch(text); m != nil {
			return string(m[1]), nil
		}
	}
	return "", errors.New("this machine is no Debian; FLAKESHIP_DEBIAN_MIRROR may name an archive of Debian's packages")
}

// unpack downloads nix-bin and what it depends on with an apt of its own settings, and unpacks it all in dir/root.
func unpack(ctx context.Context, dir, suite, mirror string) error {
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("the package debian-archive-keyring is not installed: %w", err)
	}
	apt := filepath.Join(dir, "apt")
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, d), 0o755); err != nil {
			return err
		}
	}
	sources := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, suite)
	err := errors.Join(
		os.WriteFile(filepath.Join(apt, "sources.list"), []byte(sources), 0o644),
		os.WriteFile(filepath.Join(apt, "status"), nil, 0o644)) // nothing is installed
	if err != nil {
		return err
	}
	options := []string{"-qq"}
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + apt + "/sources.list", "Dir::Etc::sourceparts=/dev/null", "Dir::State=" + apt,
		"Dir::State::Lists=" + apt + "/lists", "Dir::State::status=" + apt + "/status", "Dir::Cache=" + apt + "/cache",
		"APT::Install-Recommends=false", "APT::Sandbox::User=root", "Debug::NoLocking=1", "Acquire::Languages=none",
		"Acquire::http::Timeout=20", "Acquire::https::Timeout=20", "Acquire::Retries=1",
		"Acquire::Check-Valid-Until=false", // a mirror that is weeks behind has an old sid: signed, and as good for this
	} {
		options = append(options, "-o", o)
	}
	if err := command(ctx, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	if err := command(ctx, "apt-get", append(options, "install", "--yes", "--download-only", "nix-bin")...); err != nil {
		return err
	}
	packages, err := filepath.Glob(apt + "/cache/archives/*.deb")
	if err != nil {
		return err
	}
	for _, p := range packages {
		if err := command(ctx, "dpkg-deb", "--extract", p, filepath.Join(dir, "root")); err != nil {
			return err
		}
	}
	// What is left is libraries and programs.
	return errors.Join(os.RemoveAll(apt), os.RemoveAll(filepath.Join(dir, "root/usr/share")), os.RemoveAll(filepath.Join(dir, "root/var")))
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// writePrograms makes scripts that start Nix with the suite's own dynamic loader and libraries. So no chroot is needed, hence no root,
// and it sees the machine's files.
func writePrograms(dir string) error {
	nix, err := elf.Open(filepath.Join(dir, "root/usr/bin/nix"))
	if err != nil {
		return err
	}
	defer nix.Close()
	loader := ""
	for _, p := range nix.Progs {
		if p.Type == elf.PT_INTERP {
			text := make([]byte, p.Filesz)
			if _, err := p.ReadAt(text, 0); err != nil {
				return err
			}
			loader = strings.TrimRight(string(text), "\x00")
		}
	}
	// /lib64/x is /usr/lib64/x there: the link from one to the other is made when the system is installed.
	if _, err := os.Stat(filepath.Join(dir, "root/usr", loader)); err != nil {
		return fmt.Errorf("loader of nix: %w", err)
	}
	libraries, err := filepath.Glob(filepath.Join(dir, "root/usr/lib/*/libc.so.6"))
	if err != nil || len(libraries) != 1 {
		return fmt.Errorf("folder of libraries: found %q", libraries)
	}
	folder := filepath.Base(filepath.Dir(libraries[0]))
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	for _, program := range []string{"nix", "nix-store", "nix-daemon"} {
		script := fmt.Sprintf(`#!/bin/sh
here=${0%%/*}
export NIX_BIN_DIR="$here" # where Nix finds itself
exec "$here/../root/usr%s" --argv0 %s --library-path "$here/../root/usr/lib/%s" "$here/../root/usr/bin/nix" "$@"
`, loader, program, folder)
		if err := os.WriteFile(filepath.Join(dir, "bin", program), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}
