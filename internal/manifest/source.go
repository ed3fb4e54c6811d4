package manifest

import (
	"fmt"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Source is where an object was written.
type Source struct {
	File string // as given, or found below a given folder; "stdin" for standard input
	Line int    // of the object's first line; lines count from 1

	doc  *document
	path []any // of the object in its document: empty, or items and a number for members of a List
}

func (s Source) String() string { return fmt.Sprintf("%s:%d", s.File, s.Line) }

// Field is where a field of the object was written, or the closest thing around it that can be found. The path holds the
// keys (string) and list indexes (int) that lead to it.
func (s Source) Field(path ...any) Source {
	if s.doc == nil {
		return s
	}
	if line := s.doc.line(append(append([]any(nil), s.path...), path...)); line > 0 {
		s.Line = line
	}
	return s
}

// origin is a whole file.
type origin struct {
	out  string // path in a folder that all input is written to again
	text []byte
}

// document is one YAML document, or one JSON value, of a file.
type document struct {
	in    *origin
	at    int // where text begins in it
	text  []byte
	first int // line of the file the text begins at
	parse sync.Once
	root  *yaml.Node // nil when the text cannot be read a second time
}

// line finds the line of the deepest node that path leads to; 0 when nothing is known.
func (d *document) line(path []any) int {
	_, line := d.find(path)
	return line
}

// find finds the node that path leads to, or nil, and the line of the deepest one on the way there.
//
// Places are looked up only for messages, for Lists and to rewrite a file. So the decoder that gives values, which is the one
// kubectl uses, need not know them, and a second one that does runs only when it is needed. JSON is read as YAML here, which it
// nearly is.
func (d *document) find(path []any) (node *yaml.Node, line int) {
	d.parse.Do(func() {
		var root yaml.Node
		if yaml.Unmarshal(d.text, &root) == nil && len(root.Content) == 1 {
			d.root = root.Content[0]
		}
	})
	node = d.root
	for {
		if node == nil {
			return nil, line
		}
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		if line == 0 {
			line = d.inFile(node.Line)
		}
		if len(path) == 0 {
			return node, line
		}
		var next *yaml.Node
		switch key := path[0].(type) {
		case string:
			for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == key {
					next, line = node.Content[i+1], d.inFile(node.Content[i].Line)
				}
			}
		case int:
			if node.Kind == yaml.SequenceNode && key >= 0 && key < len(node.Content) {
				next = node.Content[key]
				line = d.inFile(next.Line)
			}
		}
		node, path = next, path[1:]
	}
}

// inFile turns a line of the text into one of the file.
func (d *document) inFile(line int) int { return d.first + line - 1 }
