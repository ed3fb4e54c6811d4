package manifest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// edit replaces the texts at the paths, in the objects and as edits.
func edit(objects []Object, from, to string) (edits []Edit) {
	var walk func(o Object, v any, path []any, set func(any))
	walk = func(o Object, v any, path []any, set func(any)) {
		switch v := v.(type) {
		case string:
			if n := strings.Count(v, from); n > 0 {
				set(strings.ReplaceAll(v, from, to))
				for range n {
					edits = append(edits, Edit{o.Source, append([]any(nil), path...), from, to})
				}
			}
		case []any:
			for i := range v {
				walk(o, v[i], append(path, i), func(to any) { v[i] = to })
			}
		case map[string]any:
			for key := range v {
				walk(o, v[key], append(path, key), func(to any) { v[key] = to })
			}
		}
	}
	for _, o := range objects {
		walk(o, o.Object, nil, nil)
	}
	return edits
}

const new = "reg.test:5000/team/api:0123@sha256:abcd"

// Whatever the style, only the words that are replaced change.
func TestRewrite(t *testing.T) {
	head := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	tests := []struct{ name, text string }{
		{"plain, with a comment that says the same", head + "data:\n  # OLD is not this OLD\n  x: OLD # OLD stays\n  w: other\n"},
		{"quotes", head + "data: {x: 'OLD', w: \"OLD\",   z:   OLD}\n"},
		{"a literal", head + "data:\n  x: |\n    # OLD\n    a: OLD and OLD\n  w: >-\n    folded OLD\n    OLD\n"},
		{"after characters of several bytes", head + "data: {ä: 'ö – OLD', 'ü': OLD}\n"},
		{"several documents", "# head\n---\n" + head + "data: {x: OLD}\n--- # next\n\n" + strings.Replace(head, "name: a", "name: b", 1) + "data: {x: OLD}\n...\n"},
		{"windows line ends", strings.ReplaceAll(head+"data:\n  x: OLD\n  w: OLD\n", "\n", "\r\n")},
		{"byte order mark", "\ufeff" + head + "data: {x: OLD}\n"},
		{"a List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: A\n  metadata: {name: a}\n  x: OLD\n- apiVersion: v1\n  kind: A\n  metadata: {name: b}\n  x:   OLD # x\n"},
		{"JSON", "\n {\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n{\"apiVersion\":\"v1\",\"kind\":\"A\",\"metadata\":{\"name\":\"a\"}, \"x\": \"OLD\"},\n{\"apiVersion\":\"v1\",\"kind\":\"B\",\"metadata\":{\"name\":\"b\"}, \"x\" : [\"OLD\"]}]}"},
		{"an anchor whose value is the same everywhere", head + "data: {x: &i OLD, w: *i}\n"},
		{"nothing to replace", head + "data: {x: other} # OLD\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, problems := Decode("f", []byte(tt.text))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			files, err := Rewrite(objects, edit(objects, "OLD", new))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.text
			for _, value := range []string{"x: OLD", "z:   OLD", "x:   OLD", "w: OLD", "'OLD'", `"OLD"`, "    # OLD\n    a: OLD and OLD", "folded OLD\n    OLD", "– OLD", "'ü': OLD", "&i OLD"} {
				want = strings.ReplaceAll(want, value, strings.ReplaceAll(value, "OLD", new))
			}
			want = strings.TrimPrefix(want, "\ufeff")
			if diff := cmp.Diff(want, string(files[0].Text)); diff != "" || len(files) != 1 {
				t.Errorf("%d files (-want +got):\n%s", len(files), diff)
			}
		})
	}
}

// What cannot be replaced where it stands is told, and nothing wrong is written.
func TestRewriteRefused(t *testing.T) {
	head := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	for _, text := range []string{
		"base: &b {x: OLD}\n" + head + "data: {<<: *b}\n", // the same words, but under another name too
		head + "data: {x: \"O\\x4cD\"}\n",
	} {
		objects, problems := Decode("f", []byte(text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		edits := edit(objects, "OLD", new)
		delete(objects[0].Object, "base")
		if files, err := Rewrite(objects, edits); err == nil {
			t.Errorf("%q became %q", text, files[0].Text)
		}
	}
}

// Files are written again under the paths they have below what was given.
func TestRewritePaths(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"deploy/a.yaml", "deploy/web/a.yaml", "other/b.json", "single.yaml"} {
		path := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(fmt.Sprintf(cm, "a")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(inputs ...string) ([]File, error) {
		t.Helper()
		for i := range inputs {
			if inputs[i] != "-" {
				inputs[i] = filepath.Join(dir, inputs[i])
			}
		}
		objects, err := Read(context.Background(), inputs, strings.NewReader(fmt.Sprintf(cm, "a")))
		if err != nil {
			t.Fatal(err)
		}
		return Rewrite(objects, nil)
	}
	for _, tt := range []struct{ inputs, want []string }{
		{[]string{"deploy"}, []string{"a.yaml", "web/a.yaml"}},
		{[]string{"deploy/"}, []string{"a.yaml", "web/a.yaml"}},
		{[]string{"deploy/**/*.yaml"}, []string{"a.yaml", "web/a.yaml"}},
		{[]string{"*/b.json", "single.yaml", "-"}, []string{"other/b.json", "single.yaml", "stdin.yaml"}},
	} {
		files, err := read(tt.inputs...)
		var got []string
		for _, f := range files {
			got = append(got, f.Path)
		}
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", tt.inputs, err, diff)
		}
	}
	if _, err := read("deploy/a.yaml", "deploy/web/a.yaml"); err == nil || !strings.Contains(err.Error(), "would be written to a.yaml, as ") {
		t.Errorf("two files of one name: %v", err)
	}
}

// Whatever is decoded is written again byte for byte when nothing is replaced.
func FuzzRewrite(f *testing.F) {
	f.Add("apiVersion: v1\nkind: A\nmetadata: {name: a}\nx: OLD\n---\n")
	f.Add(`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"x":["OLD OLD"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		objects, problems := Decode("f", []byte(text))
		if len(problems) > 0 || len(objects) == 0 {
			return
		}
		if files, err := Rewrite(objects, nil); err != nil || string(files[0].Text) != strings.TrimPrefix(text, "\ufeff") {
			t.Errorf("%q: %v, %q", text, err, files)
		}
		edits := edit(objects, "OLD", new)
		if files, err := Rewrite(objects, edits); err == nil && !means(files[0].Text, objects) {
			t.Errorf("%q became %q", text, files[0].Text)
		}
	})
}
