// Package derivation reads Nix derivations, the .drv files of a store: what a build consists of, down to the last input.
//
// The package is pure: whoever has a store says how a file of it is read.
package derivation

import (
	"fmt"
	"strings"
)

// Derivation is what one .drv file says.
type Derivation struct {
	Outputs   map[string]Output   // by name, such as out
	InputDrvs map[string][]string // names of the outputs it uses, by store path of a .drv file
	InputSrcs []string            // store paths of files, sorted
	System    string
	Builder   string
	Args      []string
	Env       map[string]string
}

// Output is one result of a derivation.
type Output struct {
	Path     string // empty when it is known after the build only
	HashAlgo string // of a fixed output, such as sha256 or r:sha256; empty: not fixed
	Hash     string // base 16; empty with a HashAlgo: content-addressed
}

// Fixed says whether the content of the output is known before the build, as that of a download is.
func (d *Derivation) Fixed() bool { return d.Outputs["out"].Hash != "" }

// Name is that of a derivation or source: a store path without folder, hash and .drv.
func Name(path string) string {
	base := path[strings.LastIndexByte(path, '/')+1:]
	if _, name, ok := strings.Cut(base, "-"); ok {
		base = name
	}
	return strings.TrimSuffix(base, ".drv")
}

// Version takes a name apart as Nix's parseDrvName does: the version begins after the first dash that no letter follows.
func Version(name string) (pname, version string) {
	for i := 0; i+1 < len(name); i++ {
		if next := name[i+1] | 0x20; name[i] == '-' && (next < 'a' || next > 'z') {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// SyntaxError says where a text is no derivation.
type SyntaxError struct {
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("no derivation: at byte %d: %s", e.Offset, e.Reason)
}

// Parse reads a .drv file: an ATerm, Derive(outputs, input derivations, input sources, system, builder, args, env).
//
// Errors: *SyntaxError. The form for dynamic derivations, DrvWithVersion, is one: no release of Nix writes it unasked.
func Parse(text []byte) (*Derivation, error) {
	p := parser{text: text}
	d := &Derivation{Outputs: map[string]Output{}, InputDrvs: map[string][]string{}, Env: map[string]string{}}
	p.token("Derive(")
	p.list(func() {
		p.token("(")
		name, path := p.string(), p.next()
		d.Outputs[name] = Output{Path: path, HashAlgo: p.next(), Hash: p.next()}
		p.token(")")
	})
	p.token(",")
	p.list(func() {
		p.token("(")
		path := p.string()
		p.token(",")
		d.InputDrvs[path] = p.strings()
		p.token(")")
	})
	p.token(",")
	d.InputSrcs = p.strings()
	d.System, d.Builder = p.next(), p.next()
	p.token(",")
	d.Args = p.strings()
	p.token(",")
	p.list(func() {
		p.token("(")
		name := p.string()
		d.Env[name] = p.next()
		p.token(")")
	})
	p.token(")")
	if p.at < len(text) {
		p.fail("something follows")
	}
	if p.err != nil {
		return nil, p.err
	}
	return d, nil
}

// parser is at a place in a text. After a mistake it stays where it is and every method does nothing.
type parser struct {
	text []byte
	at   int
	err  error // *SyntaxError, the first
}

func (p *parser) fail(format string, a ...any) {
	if p.err == nil {
		p.err = &SyntaxError{Offset: p.at, Reason: fmt.Sprintf(format, a...)}
	}
}

func (p *parser) token(want string) {
	if p.err != nil {
		return
	}
	if !strings.HasPrefix(string(p.text[p.at:min(len(p.text), p.at+len(want))]), want) {
		p.fail("%q is missing", want)
		return
	}
	p.at += len(want)
}

// list reads [item,item,...].
func (p *parser) list(item func()) {
	p.token("[")
	for first := true; p.err == nil; first = false {
		if p.at < len(p.text) && p.text[p.at] == ']' {
			break
		}
		if !first {
			p.token(",")
		}
		item()
	}
	p.token("]")
}

func (p *parser) strings() []string {
	var all []string
	p.list(func() { all = append(all, p.string()) })
	return all
}

// next is a string after a comma.
func (p *parser) next() string {
	p.token(",")
	return p.string()
}

func (p *parser) string() string {
	p.token(`"`)
	start, escaped := p.at, false
	for i := p.at; p.err == nil && i < len(p.text); i++ {
		switch p.text[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			p.at = i + 1
			if escaped {
				return unescape(p.text[start:i])
			}
			return string(p.text[start:i])
		}
	}
	p.fail("a string does not end")
	return ""
}

// unescape resolves backslashes; the last byte of text is not a lone one.
func unescape(text []byte) string {
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' {
			i++
			switch c = text[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
		}
		b = append(b, c)
	}
	return string(b)
}
