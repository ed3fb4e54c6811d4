package action_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/action"
)

// A runner kills the shell of a step, or hangs up its terminal; the step's own process notices.
func TestAStepIsCancelledWithItsShell(t *testing.T) {
	for _, c := range []struct {
		name     string
		env      string
		cancel   func(shell *os.Process, step int) error
		survives bool
	}{
		{"its shell is killed", "GITHUB_OUTPUT=" + os.DevNull, func(shell *os.Process, _ int) error { return shell.Kill() }, false},
		{"its terminal is hung up", "GITHUB_OUTPUT=" + os.DevNull, func(_ *os.Process, step int) error { return syscall.Kill(step, syscall.SIGHUP) }, false},
		{"no runner: it was put into the background", "GITHUB_OUTPUT=", func(shell *os.Process, _ int) error { return shell.Kill() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			shell := exec.Command("bash", "-c", `"$0"; true`, os.Args[0])
			shell.Env = append(os.Environ(), "FLAKESHIP_TEST_STEP=1", c.env)
			shell.Stderr = os.Stderr
			stdin, err := shell.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := shell.StdoutPipe() // the step has it as well: it ends with the step
			if err != nil {
				t.Fatal(err)
			}
			if err := shell.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			step := 0
			if !lines.Scan() {
				t.Fatal("the step says nothing")
			}
			if _, err := fmt.Sscanf(lines.Text(), "step %d", &step); err != nil {
				t.Fatalf("the step says %q: %v", lines.Text(), err)
			}
			if err := c.cancel(shell.Process, step); err != nil {
				t.Fatal(err)
			}
			patience := 20 * time.Second // for a step that does not notice
			if c.survives {
				patience = 0
			}
			defer time.AfterFunc(patience, func() { stdin.Close() }).Stop() // lets it end by itself
			var last string
			for lines.Scan() {
				last = lines.Text()
			}
			shell.Wait() // killed, or not: the step is what counts
			if ended := strings.Contains(last, "by itself"); ended != c.survives {
				t.Errorf("the step's last line is %q", last)
			}
		})
	}
}

func TestMain(m *testing.M) {
	if os.Getenv("FLAKESHIP_TEST_STEP") == "" {
		os.Exit(m.Run())
	}
	os.Args = os.Args[:1]
	action.Exit(action.Spec{Name: "step"}, func(ctx context.Context, env *action.Env) error {
		fmt.Printf("step %d\n", os.Getpid())
		input := make(chan struct{})
		go func() {
			os.Stdin.Read(make([]byte, 1)) // until it is closed
			close(input)
		}()
		select {
		case <-ctx.Done():
			fmt.Println("cancelled")
			return ctx.Err()
		case <-input:
			fmt.Println("ended by itself")
			return nil
		}
	})
}
