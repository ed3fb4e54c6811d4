package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/unnamed"
)

// Exec is Open that runs a stream script, rather than write what it would print: for scripts that are not nixpkgs' own, or not of
// a version that is known. All it prints is kept in a file without a name; disk, not memory, bounds it.
func Exec(ctx context.Context, path string, o Options) (*Image, error) {
	start := make([]byte, 2)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	_, err = io.ReadFull(f, start)
	f.Close()
	if err != nil || string(start) != "#!" {
		return Open(path, o)
	}
	if o.Store.Root != "" {
		return nil, fmt.Errorf("%s cannot be run: its store is at %s, and it looks for it at %s", path, o.Store.Root, o.Store.Dir)
	}
	spool, err := unnamed.File(o.Temp)
	if err != nil {
		return nil, err
	}
	if err := runScript(ctx, path, spool); err != nil {
		spool.Close()
		return nil, err
	}
	a, err := indexArchive(spool, path, o)
	if err != nil {
		return nil, fmt.Errorf("what it printed: %w", err)
	}
	img, err := a.image(o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("what it printed: %w", err), a.Close())
	}
	img.Family, img.Path = handoff.Stream, path
	return img, nil
}

// ScriptError is a stream script that failed.
type ScriptError struct {
	Path string
	Last string // last line of what it said
	Err  error
}

func (e *ScriptError) Error() string {
	if e.Last == "" {
		return fmt.Sprintf("run %s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("run %s: %v: %s", e.Path, e.Err, e.Last)
}

func (e *ScriptError) Unwrap() error { return e.Err }

// runScript runs a script with its output into a file.
func runScript(ctx context.Context, path string, out *os.File) error {
	said := &lastBytes{max: 4 << 10}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = slices.DeleteFunc(os.Environ(), secret)
	cmd.Stdout, cmd.Stderr = out, said
	cmd.WaitDelay = 10 * time.Second // it may have started others, which hold on to its standard error
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		lines := strings.Split(strings.TrimSpace(string(said.b)), "\n")
		return &ScriptError{path, fmt.Sprintf("%.300s", lines[len(lines)-1]), err}
	}
	_, err := out.Seek(0, io.SeekStart)
	return err
}

// secret says of a variable of the environment that it is this step's own, such as the registry's password: a script that prints an
// image has no use for it.
func secret(variable string) bool {
	return strings.HasPrefix(variable, "INPUT_") || strings.HasPrefix(variable, "COSIGN_")
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	b   []byte
	max int
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.b = append(l.b, p[max(0, len(p)-l.max):]...)
	l.b = bytes.Clone(l.b[max(0, len(l.b)-l.max):])
	return len(p), nil
}
