package inert

import (
	"regexp"
	"strings"
	"testing"
)

func TestLink(t *testing.T) {
	for _, c := range []struct{ text, address, want string }{
		{"api", "https://reg.test/team/api", "[api](https://reg.test/team/api)"},
		{"a|b", "https://reg.test/x)[y](javascript:z", `[a\|b](https://reg.test/x%29[y]%28javascript:z)`},
		{"api", "javascript:alert(1)", "api"},
		{"<b>", "https:", "&lt;b&gt;"},
		{"api", "https://reg.test/a b\">", "[api](https://reg.test/a%20b%22%3E)"},
		{"api", "://", "api"},
	} {
		if got := Link(c.text, c.address); got != c.want {
			t.Errorf("Link(%q, %q) = %q, want %q", c.text, c.address, got, c.want)
		}
	}
}

var target = regexp.MustCompile(`\]\(https?://[^()<>"| ` + "`" + `\\]*\)$`)

// Whatever the texts are: one line, no cell ends, nothing is a tag or an image, and a link ends where it should.
func FuzzMarkdown(f *testing.F) {
	f.Add("a|b\n<script>", "https://x.test/(y)")
	f.Add(`a\|b`, "")
	f.Add("![x](y)", "http://x.test/a|b`c")
	f.Fuzz(func(t *testing.T, text, address string) {
		link := Link(text, address)
		for what, got := range map[string]string{"Cell": Cell(text), "Link": link, "Label": Label(text)} {
			if strings.ContainsAny(got, "<>`\n\r") || regexp.MustCompile(`(^|[^\\]|\\\\)\|`).MatchString(got) || what == "Label" && strings.ContainsAny(got, "\"[](){}|") {
				t.Errorf("%s(%q, %q) = %q", what, text, address, got)
			}
		}
		if link != Cell(text) && !target.MatchString(link) {
			t.Errorf("Link(%q, %q) = %q", text, address, link)
		}
	})
}
