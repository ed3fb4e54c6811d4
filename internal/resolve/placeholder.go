package resolve

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/manifest"
)

// placeholder is flakeship:NAME wherever it is not part of a longer reference: registry.example.org/flakeship:v1 is none.
var placeholder = regexp.MustCompile(`(^|[^A-Za-z0-9._/@:-])flakeship:([A-Za-z0-9][A-Za-z0-9._/-]*)`)

func hasPlaceholder(text string) bool { return placeholder.MatchString(text) }

// fill replaces the placeholders in a text of an object and gives each that was replaced, with its image, to use; a name that
// nothing is known for goes to unknown.
func (t *Table) fill(text string, use func(token string, one *target), unknown func(name string)) string {
	var b strings.Builder
	done := 0
	for _, m := range placeholder.FindAllStringSubmatchIndex(text, -1) {
		begin, name := m[3], text[m[4]:m[5]]
		one := t.named(name)
		for one == nil && strings.ContainsRune("./-", rune(name[len(name)-1])) { // the end of a sentence, more likely than of the name
			name = name[:len(name)-1]
			one = t.named(name)
		}
		if one == nil {
			unknown(text[m[4]:m[5]])
			continue
		}
		token := "flakeship:" + name
		use(token, one)
		b.WriteString(text[done:begin] + one.to)
		done = begin + len(token)
	}
	return b.String() + text[done:]
}

// named finds the image that a placeholder means.
func (t *Table) named(name string) *target {
	if one := t.byName[name]; one != nil {
		return one
	}
	if repo, _, err := parse(name); err == nil {
		return t.byRepo[repo]
	}
	return nil
}

// leftover is the problem of a placeholder for an image that nobody provides.
func (t *Table) leftover(f field, name string) manifest.Problem {
	var names []string
	for _, one := range t.targets {
		names = append(names, one.name)
	}
	text := fmt.Sprintf("%s: placeholder flakeship:%s stands for no image of the push result or of images", f.object.ID(), name)
	if near := nearest(name, names); len(near) > 0 {
		text += "; near: " + strings.Join(near, ", ")
	} else if slices.Sort(names); len(names) > 0 {
		text += "; there are " + strings.Join(names[:min(len(names), 10)], ", ")
	}
	return manifest.Problem{At: f.source().String(), Text: text}
}
