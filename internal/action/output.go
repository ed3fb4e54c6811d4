package action

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/report"
)

// MaxOutput is the longest value an output may have, in bytes. Runners with a line limit of 64 KiB lose a longer one
// silently, and every later output with it.
const MaxOutput = 60_000

// checkWritable finds out before any work whether the results can be written.
func (e *Env) checkWritable() []error {
	var problems []error
	if path := e.Getenv("GITHUB_OUTPUT"); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			problems = append(problems, fmt.Errorf("the runner's output file cannot be written: %w", err))
		} else {
			f.Close()
		}
	}
	for _, input := range []string{"out", "report"} {
		if err := writable(e.values[input]); err != nil {
			problems = append(problems, fmt.Errorf("input %s is %q: %w", input, e.values[input], err))
		}
	}
	return problems
}

// writable finds out whether a file can be put at path, whose folder it makes. An empty path is no file.
func writable(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return errors.New("a folder, not a file")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".flakeship-*")
	if err != nil {
		return fmt.Errorf("the folder cannot be written: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// SetOutput gives value to later steps, or prints name=value when there is no runner. A value over MaxOutput is left out
// with a warning: all of it is in the hand-over file as well.
func (e *Env) SetOutput(name, value string) error {
	if !e.spec.hasOutput(name) {
		panic("action: output " + name + " is not declared")
	}
	if len(value) > MaxOutput {
		e.Warnf("output %s is left out: it has %d bytes, runners take %d; read it from the hand-over file", name, len(value), MaxOutput)
		return nil
	}
	if !e.runner {
		if strings.Contains(value, "\n") {
			return fmt.Errorf("output %s has more than one line", name)
		}
		_, err := fmt.Fprintf(e.Stdout, "%s=%s\n", name, value)
		return err
	}
	return appendFile(e.Getenv("GITHUB_OUTPUT"), fileCommand(name, value))
}

// SetOutputJSON is SetOutput for anything but text.
func (e *Env) SetOutputJSON(name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("output %s: %w", name, err)
	}
	return e.SetOutput(name, string(b))
}

// fileCommand is the text that sets name to value in a runner's output file. The delimiter is new and random each time: a
// fixed one, as the SDK has, can be written into the value to end it early and set other outputs.
func fileCommand(name, value string) string {
	delimiter := "flakeship-" + rand.Text()
	return name + "<<" + delimiter + "\n" + value + "\n" + delimiter + "\n"
}

// WriteResult writes the hand-over document and the two outputs that carry it: its path and its text, which is packed when it
// is longer than an output may be.
// It returns the path.
func (e *Env) WriteResult(d handoff.Document) (string, error) {
	text, err := handoff.Seal(d)
	if err != nil {
		return "", err
	}
	var head handoff.Header
	if err := json.Unmarshal(text, &head); err != nil {
		return "", err
	}
	path := e.values["out"]
	if path == "" {
		// Named by content, so that two steps of one job never share a file.
		path = filepath.Join(e.tempDir(), "flakeship", fmt.Sprintf("%s-%.12s.json", head.Kind, strings.TrimPrefix(head.Digest, "sha256:")))
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if _, err := handoff.WriteFile(path, d); err != nil {
		return "", err
	}
	e.written = d
	e.addToReport(d)
	name := string(head.Kind)
	if err := e.SetOutput(name, path); err != nil {
		return path, err
	}
	value := string(text)
	if len(value) > MaxOutput {
		value = handoff.Pack(text)
	}
	if len(value) > MaxOutput {
		e.Infof("%s-json is left out: %d bytes, %d packed; pass the file %s on", name, len(text), len(value), name)
		return path, nil
	}
	return path, e.SetOutput(name+"-json", value)
}

// addToReport adds the document to the run's page. A page that cannot be written is worth a warning, not a failed step.
func (e *Env) addToReport(d handoff.Document) {
	path := e.values["report"]
	if path == "" {
		return
	}
	if err := report.Add(path, d, e.run()); err != nil {
		e.Warnf("%v", err)
	}
}

// WriteTemp writes a file for later steps of the job to the runner's temporary folder and returns its path. Its name holds a
// hash of the content, so that two steps of one job never share a file.
func (e *Env) WriteTemp(prefix, extension string, text []byte) (path string, err error) {
	path = filepath.Join(e.tempDir(), "flakeship", fmt.Sprintf("%s-%.12x%s", prefix, sha256.Sum256(text), extension))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, text, 0o644)
}

func (e *Env) tempDir() string {
	if dir := e.Getenv("RUNNER_TEMP"); dir != "" {
		return dir
	}
	return os.TempDir()
}
