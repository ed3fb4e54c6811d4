package nix

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// selection is the compiled globs of a Query. Nix does the choosing, so that an attribute that is left out is not evaluated.
type selection struct {
	in, out []glob
}

type glob struct {
	text string // as given, without the !
	re   string // for Nix's builtins.match and for Go alike
}

// GlobError is a pattern that cannot select anything.
type GlobError struct{ Glob string }

func (e *GlobError) Error() string {
	return fmt.Sprintf("attribute %q: a glob has letters, digits, * and ?, and ! before it to exclude", e.Glob)
}

func newSelection(globs []string) (selection, error) {
	var s selection
	for _, g := range globs {
		text, exclude := strings.CutPrefix(g, "!")
		if text == "" || strings.ContainsAny(text, "!#\n\"\\[]{}") {
			return s, &GlobError{g}
		}
		compiled := glob{text, regexOf(text)}
		if exclude {
			s.out = append(s.out, compiled)
		} else {
			s.in = append(s.in, compiled)
		}
	}
	return s, nil
}

// regexOf translates a glob to the extended regular expressions of POSIX, as far as Go's mean the same.
func regexOf(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '*':
			b.WriteString(".*")
		case r == '?':
			b.WriteString(".")
		case strings.ContainsRune(".^$+()|", r):
			b.WriteString(`\` + string(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (g glob) has(a attribute) bool {
	re := regexp.MustCompile("^(?:" + g.re + ")$")
	return re.MatchString(a.Name) || re.MatchString("packages."+a.System+"."+a.Name)
}

func (s selection) has(a attribute) bool {
	match := func(g glob) bool { return g.has(a) }
	return (len(s.in) == 0 || slices.ContainsFunc(s.in, match)) && !slices.ContainsFunc(s.out, match)
}

// unmatched are the globs that match none of the names.
func (s selection) unmatched(systems []systemNames) []string {
	var none []string
	for _, g := range s.in {
		if !slices.ContainsFunc(systems, func(sys systemNames) bool {
			return slices.ContainsFunc(sys.Names, func(name string) bool { return g.has(attribute{sys.System, name}) })
		}) {
			none = append(none, g.text)
		}
	}
	return none
}

func (s selection) include() []string { return regexes(s.in) }
func (s selection) exclude() []string { return regexes(s.out) }

func regexes(globs []glob) []string {
	list := []string{} // not null: Nix takes it for a list
	for _, g := range globs {
		list = append(list, g.re)
	}
	return list
}

// SystemError is a text that is no Nix system.
type SystemError struct{ System string }

func (e *SystemError) Error() string {
	return fmt.Sprintf("system %q is none that Nix builds for", e.System)
}

// systems are those that Nix names: a processor of these, and a kernel.
var systems = regexp.MustCompile(`^(x86_64|i686|aarch64|armv[567][a-z]*|riscv(32|64)|powerpc(64(le)?)?|s390x?|mips(64)?(el)?|loongarch64|wasm(32|64))-` +
	`(linux|darwin|freebsd|openbsd|netbsd|cygwin|windows|wasi|none)$`)

// CheckSystem says whether anybody could build for a system.
//
// Errors: *SystemError.
func CheckSystem(system string) error {
	if systems.MatchString(system) {
		return nil
	}
	return &SystemError{system}
}
