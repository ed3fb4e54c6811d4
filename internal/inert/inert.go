// Package inert makes text from outside harmless where it is shown: a line of the log, a cell, a block or a link of Markdown, the
// label of a Mermaid graph. Names come from flakes, registries and clusters; whoever wrote them may want to run something at the
// reader's, or to end the table they are in.
package inert

import (
	"fmt"
	"html"
	"net/url"
	"strings"
)

// Line makes one line of text harmless: no terminal control, and nothing a runner takes for a command. GitHub's older parser
// finds "##[" anywhere in a line, the newer one "::" at its start.
func Line(line string) string {
	var b strings.Builder
	for _, r := range line {
		switch {
		case r == '\t':
			b.WriteByte('\t')
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069':
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	line = strings.ReplaceAll(b.String(), "##[", "# #[")
	if trimmed := strings.TrimLeft(line, " \t\u00a0\ufeff"); strings.HasPrefix(trimmed, "::") {
		line = strings.Replace(line, "::", ": :", 1)
	}
	return line
}

// OneLine folds text of several lines.
func OneLine(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// Cell makes text a cell of a Markdown table, or a part of a line.
func Cell(text string) string { return cell.Replace(Line(OneLine(text))) }

// A backslash before one of ours would take its meaning away: `\\|` ends a cell.
var cell = strings.NewReplacer(`\`, "&#92;", "|", `\|`, "`", "'", "<", "&lt;", ">", "&gt;", "[", `\[`, "]", `\]`, "*", `\*`, "_", `\_`, "!", `\!`, "@", "&#64;", "#", "&#35;")

// Link makes text a Markdown link to an address; without a usable http address it is text alone.
func Link(text, address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return Cell(text)
	}
	target := strings.NewReplacer("(", "%28", ")", "%29", "<", "%3C", ">", "%3E", "|", "%7C", `\`, "%5C", "`", "%60", `"`, "%22").Replace(u.String())
	return "[" + Cell(text) + "](" + target + ")"
}

// Pre makes text of any number of lines a block of Markdown that shows it as it is.
func Pre(text string) string {
	var b strings.Builder
	b.WriteString("<pre>")
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(html.EscapeString(Line(line)) + "\n")
	}
	b.WriteString("</pre>\n")
	return b.String()
}

// Label is text between the quotes of a Mermaid node: no character of it means anything to Mermaid, Markdown or HTML.
func Label(text string) string {
	var b strings.Builder
	for _, r := range Line(text) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ./-_+:,→…", r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
