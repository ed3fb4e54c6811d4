package report

import (
	"fmt"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/inert"
)

// Bounds of the graph. With more nobody can read it, and forges draw none: Mermaid stops at 50 000 characters and 500 edges.
const (
	maxNodes = 40 // causes; images as well
	maxEdges = 200
	maxLabel = 60 // characters, of which each may take eight
)

// Changes is what changed since a commit, as Markdown: a table, and a graph of what makes which images others. Of nil it is empty.
func Changes(c *handoff.Changes) string {
	if c == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#### Since %.12s\n\n", inert.Cell(c.Base))
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return b.String() + "No image is another.\n\n"
	}
	b.WriteString("| image | change | because | by |\n|---|---|---|---|\n")
	var rows []string
	line := func(cells ...string) {
		for i := range cells {
			cells[i] = inert.Cell(cut(cells[i], maxCell))
		}
		rows = append(rows, strings.TrimRight("| "+strings.Join(cells, " | "), " ")+" |\n")
	}
	for _, id := range c.Added {
		line(id.Name, "added", "", "")
	}
	for _, id := range c.Removed {
		line(id.Name, "removed", "", "")
	}
	for _, img := range c.Changed {
		name, change := img.Name, "changed"
		if len(img.Causes) == 0 {
			line(name, change, "", "")
		}
		for _, cause := range img.Causes {
			line(name, change, cause.String(), strings.Join(cause.Via, " → "))
			name, change = "", ""
		}
	}
	for i, row := range rows {
		if i == maxRows || b.Len() > maxTable {
			fmt.Fprintf(&b, "\n… and %s; the Plan has all of them.\n", count(len(rows)-i, "more row"))
			break
		}
		b.WriteString(row)
	}
	b.WriteString("\n")
	return b.String() + graph(c.Changed)
}

// graph draws causes and the images they change.
func graph(changed []handoff.ChangedImage) string {
	var b strings.Builder
	nodes := map[string]int{}
	edges, left := 0, 0
	for i, img := range changed {
		named := false
		for _, cause := range img.Causes {
			text := cause.String()
			node, known := nodes[text]
			if i >= maxNodes || edges == maxEdges || !known && len(nodes) == maxNodes {
				left++
				continue
			}
			if !known {
				node = len(nodes)
				nodes[text] = node
				fmt.Fprintf(&b, "  c%d[\"%s\"]\n", node, inert.Label(cut(text, maxLabel)))
			}
			edges++
			fmt.Fprintf(&b, "  c%d --> i%d", node, i)
			if !named {
				named = true
				fmt.Fprintf(&b, "([\"%s\"])", inert.Label(cut(img.Name, maxLabel)))
			}
			b.WriteString("\n")
		}
	}
	if edges == 0 {
		return ""
	}
	note := ""
	if left > 0 {
		note = fmt.Sprintf("The graph leaves out %s.\n\n", count(left, "arrow"))
	}
	return "```mermaid\ngraph LR\n" + b.String() + "```\n\n" + note
}
