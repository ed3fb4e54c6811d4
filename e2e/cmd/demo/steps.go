package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// steps writes what the four steps say from the runner's log, and leaves out
// what the runner says of itself: scripts, outputs, masks. The whole log is in
// a file.
type steps struct {
	out  io.Writer
	rest string
	in   bool // inside a step of flakeship
	head bool // before the step's own output: the runner shows the script
}

// begin is the runner's line above a step.
var begin = regexp.MustCompile(`Run Main "\$GITHUB_ACTION_PATH/actions/launch\.sh" (\S+)$`)

func (s *steps) Write(p []byte) (int, error) {
	s.rest += string(p)
	for {
		line, rest, found := strings.Cut(s.rest, "\n")
		if !found {
			return len(p), nil
		}
		s.rest = rest
		_, line, _ = strings.Cut(line, "] ") // the job's name
		s.line(line)
	}
}

func (s *steps) line(line string) {
	text, said := strings.CutPrefix(line, "  | ")
	switch m := begin.FindStringSubmatch(line); {
	case m != nil:
		fmt.Fprintf(s.out, "  %s\n", m[1])
		s.in, s.head = true, true
	case !s.in:
	case strings.HasPrefix(line, "Success - "), strings.HasPrefix(line, "Failure - "):
		s.in = false
	case s.head:
		s.head = text != "::endgroup::"
	case said && !strings.HasPrefix(text, "::"):
		fmt.Fprintf(s.out, "    %s\n", text)
	}
}
