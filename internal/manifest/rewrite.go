package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"unicode/utf8"
)

// Edit is a text that takes the place of another in one field of an object.
type Edit struct {
	Source   Source // of the object
	Path     []any  // of the field in it
	Old, New string // Old is the field's whole text, or a word of it
}

// File is a file as it is to be written again.
type File struct {
	Path string // relative, with slashes: as below the input folder, or the name of a file that was given itself
	Text []byte
}

// Rewrite returns the files the objects came from, with the edits made where they were written. Every other byte stays as it
// is: comments, order, style. The objects have to be all that were read, in their order, and have the edits made already:
// a file whose text does not come to the same is a problem.
//
// Errors: *Error.
func Rewrite(objects []Object, edits []Edit) ([]File, error) {
	var files []File
	var problems []Problem
	splices := map[*origin][]splice{}
	for _, in := range places(edits) {
		splice, err := in.splice()
		if err != nil {
			problems = append(problems, Problem{in.edit.Source.Field(in.edit.Path...).String(), err.Error()})
			continue
		}
		splices[in.edit.Source.doc.in] = append(splices[in.edit.Source.doc.in], splice)
	}
	of := map[*origin][]Object{}
	var origins []*origin
	taken := map[string]string{}
	for _, o := range objects {
		in := o.Source.doc.in
		if of[in] == nil {
			origins = append(origins, in)
			path := filepath.ToSlash(in.out)
			if other, ok := taken[path]; ok {
				problems = append(problems, Problem{o.Source.File, fmt.Sprintf("would be written to %s, as %s would be: give the folder above the two", path, other)})
			}
			taken[path] = o.Source.File
		}
		of[in] = append(of[in], o)
	}
	for _, in := range origins {
		text, ok := apply(in.text, splices[in])
		if ok {
			ok = means(text, of[in])
		}
		if !ok && len(problems) == 0 {
			problems = append(problems, Problem{of[in][0].Source.File, "cannot be rewritten in its own form: write images in plain text or in quotes, without anchors"})
		}
		files = append(files, File{filepath.ToSlash(in.out), text})
	}
	return files, asError(problems)
}

// means says whether text has the content of objects.
func means(text []byte, objects []Object) bool {
	again, problems := Decode("", text)
	return len(problems) == 0 && slices.EqualFunc(again, objects, func(a, b Object) bool { return reflect.DeepEqual(a.Object, b.Object) })
}

// splice replaces text[begin:end].
type splice struct {
	begin, end int
	text       string
}

// apply makes the splices. It reports false when two contradict each other.
func apply(text []byte, splices []splice) ([]byte, bool) {
	slices.SortFunc(splices, func(a, b splice) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	splices = slices.Compact(splices) // several aliases of one anchor
	var out bytes.Buffer
	done := 0
	for _, s := range splices {
		if s.begin < done {
			return text, false
		}
		out.Write(text[done:s.begin])
		out.WriteString(s.text)
		done = s.end
	}
	out.Write(text[done:])
	return out.Bytes(), true
}

// place is an edit, and how often the same text is edited in the same field before it.
type place struct {
	edit  Edit
	after []string
}

// places puts edits of one field behind each other: they come in the order of the text.
func places(edits []Edit) (all []place) {
	type field struct {
		doc  *document
		path string
	}
	seen := map[field][]string{}
	for _, edit := range edits {
		key := field{edit.Source.doc, fmt.Sprintf("%q", append(slices.Clone(edit.Source.path), edit.Path...))}
		all = append(all, place{edit, slices.Clone(seen[key])})
		seen[key] = append(seen[key], edit.Old)
	}
	return all
}

// splice finds where the edit is in the file. The words that are replaced hold nothing that YAML writes in another way, so they
// are in its text as they are in the value.
func (p place) splice() (splice, error) {
	doc := p.edit.Source.doc
	node, _ := doc.find(append(slices.Clone(p.edit.Source.path), p.edit.Path...))
	if node == nil {
		return splice{}, fmt.Errorf("%s cannot be found where it was written: is it behind an anchor?", p.edit.Old)
	}
	at := offset(doc.text, node.Line, node.Column)
	for _, word := range append(p.after, p.edit.Old) {
		i := bytes.Index(doc.text[at:], []byte(word))
		if i < 0 {
			return splice{}, fmt.Errorf("%s is written in a form that cannot be replaced", p.edit.Old)
		}
		at += i + len(word)
	}
	at += doc.at
	return splice{at - len(p.edit.Old), at, p.edit.New}, nil
}

// offset turns a line and a column, both from 1 and the column in characters, into a place in text.
func offset(text []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(text[at:], '\n') + 1
	}
	for ; column > 1 && at < len(text); column-- {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at
}
