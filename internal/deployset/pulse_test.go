package deployset

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const somebody = "aaaaaaaaaaaa" // a token

// TestMain is also the process of another run, which lives until it is killed.
func TestMain(m *testing.M) {
	if os.Getenv("FLAKESHIP_TEST_PULSE") == "" {
		os.Exit(m.Run())
	}
	p := startPulse(somebody)
	os.Stdout.WriteString("lives\n")
	time.Sleep(time.Hour)
	p.end()
}

// start runs a process with a pulse and returns when it has one.
func start(t *testing.T) *exec.Cmd {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FLAKESHIP_TEST_PULSE=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "lives\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd
}

// A process is gone when it was killed, and not before; what cannot be known is not believed.
func TestPulse(t *testing.T) {
	other := start(t)
	if isGone(somebody) {
		t.Fatal("it is said to be gone, and lives")
	}
	if second := startPulse(somebody); second != nil {
		t.Error("two have the same pulse")
	}
	other.Process.Kill()
	other.Wait()
	if !isGone(somebody) {
		t.Fatal("it was killed, and is not said to be gone")
	}
	for _, token := range []string{"", "bbbbbbbbbbbb", "../" + somebody, somebody + "]", "AAAAAAAAAAAA"} {
		if isGone(token) {
			t.Errorf("%q is said to be gone", token)
		}
	}
	if err := os.WriteFile(pulsePath(somebody), []byte("another machine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if isGone(somebody) {
		t.Error("a file of another machine is believed")
	}
	os.Remove(pulsePath(somebody))
	if err := os.Symlink("/proc/sys/kernel/random/boot_id", pulsePath(somebody)); err != nil {
		t.Fatal(err)
	}
	if isGone(somebody) {
		t.Error("a link is believed")
	}
	if os.Geteuid() == 0 {
		os.Remove(pulsePath(somebody))
		if err := os.WriteFile(pulsePath(somebody), []byte(bootID()), 0o644); err != nil {
			t.Fatal(err)
		}
		if !isGone(somebody) {
			t.Error("our own file is not believed")
		}
		if err := os.Chown(pulsePath(somebody), 65534, -1); err != nil {
			t.Fatal(err)
		}
		if isGone(somebody) {
			t.Error("a file of another user is believed")
		}
	}
}

// A holder that was killed on this machine is not waited for any longer than its last requests may take.
func TestHolderKilledHere(t *testing.T) {
	other := start(t)
	lease := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "x"},
		"spec": map[string]any{"holderIdentity": "process 7 on here [" + somebody + "]"}}}
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		s.keep(lease)
		if _, o, err := s.acquire(t, "me", 10*time.Second); err == nil || o.waited == nil || o.waited.Gone {
			t.Errorf("it lives, and was waited for as %+v: %v", o.waited, err)
		}
	})
	other.Process.Kill()
	other.Wait()
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		s.keep(lease)
		begin := time.Now()
		l, o, err := s.acquire(t, "me", time.Minute)
		if took := time.Since(begin); err != nil || took < deadTime || took > deadTime+2*lookEvery || o.waited == nil || !o.waited.Gone || o.died == nil {
			t.Fatalf("after %v: %v, waited for %+v, died %+v", took, err, o.waited, o.died)
		}
		l.Release(t.Context())
	})
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
