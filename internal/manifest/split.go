package manifest

import (
	"bytes"
	"maps"
	"slices"
)

// split cuts a YAML text into its documents. A line that begins with --- or ... is never part of a value: YAML forbids it
// inside block scalars and quotes alike, so lines are all there is to look at.
func split(text []byte) []*document {
	var docs []*document
	begin, first, line := 0, 1, 1
	directives := false // since begin: %YAML and the like belong to the document after the next ---
	cut := func(end int) {
		docs = append(docs, &document{at: begin, text: text[begin:end], first: first})
		begin, first, directives = end, line, false
	}
	for pos := 0; pos < len(text); line++ {
		end := pos + len(text[pos:])
		if n := bytes.IndexByte(text[pos:], '\n'); n >= 0 {
			end = pos + n + 1
		}
		row := text[pos:end]
		switch {
		case marker(row, "---"):
			if directives {
				directives = false
			} else {
				cut(pos)
			}
		case marker(row, "..."):
			docs = append(docs, &document{at: begin, text: text[begin:pos], first: first})
			begin, first, directives = end, line+1, false
		case row[0] == '%' && len(bytes.TrimSpace(text[begin:pos])) == 0:
			directives = true
		}
		pos = end
	}
	cut(len(text))
	return docs
}

func marker(row []byte, mark string) bool {
	rest, ok := bytes.CutPrefix(row, []byte(mark))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// contentLine is the line of the file where a document's content begins, and whether it has none: only blanks and comments.
func contentLine(doc *document) (line int, blank bool) {
	n := doc.first
	for row := range bytes.Lines(doc.text) {
		if marker(row, "---") {
			row = row[3:]
		}
		row = bytes.TrimSpace(row)
		if len(row) > 0 && row[0] != '#' && row[0] != '%' {
			return n, false
		}
		n++
	}
	return doc.first, true
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
