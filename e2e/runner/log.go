package runner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
)

// runLog reads the runners' JSON log as it is written. Both runners come from
// the same program and write the same fields.
type runLog struct {
	live io.Writer // gets the text as it comes; may be nil

	mu      sync.Mutex
	partial []byte
	text    strings.Builder
	outputs map[string]map[string]string
}

func newLog(live io.Writer) *runLog {
	return &runLog{live: live, outputs: map[string]map[string]string{}}
}

// entry is one line of the JSON log.
type entry struct {
	Message string   `json:"msg"`
	Job     string   `json:"job"`
	StepID  []string `json:"stepID"`
	Raw     bool     `json:"raw_output"` // printed by a step, not said by the runner

	// act alone gives outputs as fields.
	Command string `json:"command"`
	Name    string `json:"name"`
	Arg     string `json:"arg"`
}

func (l *runLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.line(line)
		l.partial = rest
	}
}

func (l *runLog) line(line []byte) {
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		l.print(string(line))
		return
	}
	// "::set-output:: a=b" is how the runners report an output that was set.
	if _, set, ok := strings.Cut(e.Message, "::set-output:: "); ok && !e.Raw && len(e.StepID) > 0 {
		name, value, _ := strings.Cut(set, "=")
		if e.Command == "set-output" {
			name, value = e.Name, e.Arg
		}
		step := strings.Join(e.StepID, "/")
		if l.outputs[step] == nil {
			l.outputs[step] = map[string]string{}
		}
		l.outputs[step][name] = value
	}
	prefix := ""
	if e.Job != "" {
		prefix = "[" + strings.TrimSpace(e.Job) + "] "
		if e.Raw {
			prefix += "  | "
		}
	}
	for message := range strings.Lines(e.Message) {
		l.print(prefix + strings.TrimRight(message, "\r\n"))
	}
}

func (l *runLog) print(line string) {
	l.text.WriteString(line + "\n")
	if l.live != nil {
		fmt.Fprintln(l.live, line)
	}
}

func (l *runLog) result() Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.line(l.partial)
		l.partial = nil
	}
	return Result{Log: l.text.String(), Outputs: l.outputs}
}
