// Package sshserver is a real sshd on loopback for tests, with keys and settings of its own, behind a proxy that can cut lines.
package sshserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Server is another machine: whoever logs in has Env, which points its Nix to a store of its own.
type Server struct {
	Host string // user@address
	Opts string // options for ssh, for NIX_SSHOPTS

	sshd  *exec.Cmd
	proxy net.Listener

	mu      sync.Mutex
	lines   []net.Conn
	refused int // lines that are to be cut when they are made
}

// Start starts sshd with its files in dir, which nobody else may write to. Variables of env are set for those who log in.
func Start(dir string, env []string) (*Server, error) {
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		if sshd = "/usr/sbin/sshd"; exec.Command(sshd, "-V").Err != nil {
			return nil, fmt.Errorf("these tests run the real sshd: install Debian's openssh-server: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 { // where it locks itself in before anybody has logged in
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file(name)).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	behind, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := []string{
		"ListenAddress 127.0.0.1", fmt.Sprint("Port ", behind), "HostKey " + file("host"), "AuthorizedKeysFile " + file("user.pub"),
		"PidFile none", "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no",
		"MaxStartups 100", "SetEnv " + strings.Join(env, " "),
	}
	if err := os.WriteFile(file("sshd_config"), []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	s := &Server{sshd: exec.Command(sshd, "-D", "-f", file("sshd_config"), "-E", file("log"))}
	if err := s.sshd.Start(); err != nil {
		return nil, err
	}
	if err := await(behind); err != nil {
		log, _ := os.ReadFile(file("log"))
		s.Close()
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	if s.proxy, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s.Close()
		return nil, err
	}
	go s.serve(behind)
	s.Host = "127.0.0.1"
	s.Opts = fmt.Sprintf("-F none -p %d -i %s -o UserKnownHostsFile=%s -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR",
		s.proxy.Addr().(*net.TCPAddr).Port, file("user"), file("known"))
	return s, nil
}

// Close ends sshd and all lines to it.
func (s *Server) Close() {
	if s.proxy != nil {
		s.proxy.Close()
	}
	s.Cut()
	s.sshd.Process.Kill()
	s.sshd.Wait() // killed
}

// Cut ends all lines, as a network that fails does. New ones can be made.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		line.Close()
	}
	s.lines = nil
}

// Refuse ends the next n lines as soon as they are made.
func (s *Server) Refuse(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = n
}

// refuse says whether a line is one of those.
func (s *Server) refuse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == 0 {
		return false
	}
	s.refused--
	return true
}

func (s *Server) serve(behind int) {
	for {
		line, err := s.proxy.Accept()
		if err != nil {
			return // closed
		}
		if s.refuse() {
			line.Close()
			continue
		}
		server, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", behind))
		if err != nil {
			line.Close()
			continue
		}
		s.mu.Lock()
		s.lines = append(s.lines, line, server)
		s.mu.Unlock()
		for _, ends := range [][2]net.Conn{{line, server}, {server, line}} {
			go func() {
				io.Copy(ends[0], ends[1]) // ends with either of them
				ends[0].Close()
				ends[1].Close()
			}()
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func await(port int) error {
	for range 600 {
		if c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("sshd does not listen")
}
