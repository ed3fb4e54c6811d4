package substituter

import (
	"fmt"
	"net/url"
	"os"
	"strings"
)

// Netrc holds credentials by host, as the file of that name.
type Netrc struct{ machines []machine }

type machine struct {
	host            string // empty: any
	login, password string
}

// LoadNetrc reads a netrc file. Errors do not show its content.
func LoadNetrc(path string) (Netrc, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Netrc{}, err
	}
	n, err := ParseNetrc(string(b))
	if err != nil {
		return Netrc{}, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// ParseNetrc reads the netrc format as curl does, which Nix leaves it to: words separated by blanks or lines, quotes around a
// word with blanks, comments from "#" at the start of a word to the end of the line, macros skipped.
func ParseNetrc(text string) (Netrc, error) {
	var n Netrc
	var current *machine
	words := &words{rest: text}
	for {
		word, ok := words.next()
		if !ok {
			return n, nil
		}
		switch word {
		case "default":
			n.machines = append(n.machines, machine{})
			current = &n.machines[len(n.machines)-1]
			continue
		case "macdef":
			words.skipMacro()
			continue
		}
		value, ok := words.next()
		if !ok {
			return Netrc{}, fmt.Errorf("not a netrc file: nothing follows the last word")
		}
		switch word {
		case "machine":
			n.machines = append(n.machines, machine{host: strings.ToLower(value)})
			current = &n.machines[len(n.machines)-1]
		case "login", "password", "account":
			if current == nil {
				return Netrc{}, fmt.Errorf("not a netrc file: %q comes before the first machine", word)
			}
			if word == "login" {
				current.login = value
			} else if word == "password" {
				current.password = value
			}
		default:
			return Netrc{}, fmt.Errorf("not a netrc file: a word is none of machine, default, login, password, account, macdef")
		}
	}
}

// credentials returns what to send to host: those in its URL, else those of the first entry that fits; nil: nothing.
func (n Netrc) credentials(host string, inURL *url.Userinfo) *url.Userinfo {
	if inURL != nil {
		if _, has := inURL.Password(); has {
			return inURL
		}
	}
	for _, m := range n.machines {
		if (m.host == "" || m.host == strings.ToLower(host)) && (inURL == nil || inURL.Username() == m.login) {
			return url.UserPassword(m.login, m.password)
		}
	}
	return inURL
}

// words splits a netrc file.
type words struct{ rest string }

func (w *words) next() (string, bool) {
	for {
		w.rest = strings.TrimLeft(w.rest, " \t\r\n")
		if w.rest == "" {
			return "", false
		}
		if w.rest[0] != '#' {
			break
		}
		_, w.rest, _ = strings.Cut(w.rest, "\n")
	}
	if w.rest[0] == '"' {
		return w.quoted()
	}
	end := strings.IndexAny(w.rest, " \t\r\n")
	if end < 0 {
		end = len(w.rest)
	}
	word := w.rest[:end]
	w.rest = w.rest[end:]
	return word, true
}

// quoted reads a word in quotes, in which a backslash stands before a quote or a backslash.
func (w *words) quoted() (string, bool) {
	var b strings.Builder
	for i := 1; i < len(w.rest); i++ {
		switch c := w.rest[i]; {
		case c == '"':
			w.rest = w.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(w.rest):
			i++
			b.WriteByte(w.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	w.rest = ""
	return b.String(), true
}

// skipMacro leaves out a macro: its name and all lines up to an empty one.
func (w *words) skipMacro() {
	if end := strings.Index(w.rest, "\n\n"); end >= 0 {
		w.rest = w.rest[end:]
	} else {
		w.rest = ""
	}
}
