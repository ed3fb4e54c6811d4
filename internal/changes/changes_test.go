package changes

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/derivation"
	"github.com/flakeship/flakeship/internal/handoff"
)

// path is a store path whose hash begins with a letter.
func path(letter byte, name string) string {
	return "/nix/store/" + strings.Repeat(string(letter), 32) + "-" + name
}

// drv is a .drv file.
func drv(inputs, sources []string, env map[string]string) string {
	quote := func(list []string, form string) string {
		var all []string
		for _, s := range slices.Sorted(slices.Values(list)) {
			all = append(all, fmt.Sprintf(form, s))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	var vars []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		vars = append(vars, fmt.Sprintf("(%q,%q)", key, env[key]))
	}
	return `Derive([("out","/nix/store/x","","")],` + quote(inputs, `(%q,["out"])`) + "," + quote(sources, "%q") +
		`,"x86_64-linux","/bin/sh",["-c","true"],[` + strings.Join(vars, ",") + `])`
}

func TestExplain(t *testing.T) {
	type env = map[string]string
	none := env{}
	for name, test := range map[string]struct {
		files map[string]string // of the store, beside the images was and is
		was   string
		is    string
		want  []handoff.Cause
	}{
		"environment": {
			was: drv(nil, nil, env{"out": "/nix/store/x", "port": "80", "gone": "1"}), is: drv(nil, nil, env{"out": "/nix/store/y", "port": "8080"}),
			want: []handoff.Cause{{Kind: "environment", What: "gone", From: "1"}, {Kind: "environment", What: "port", From: "80", To: "8080"}},
		},
		"a variable of structured attributes": {
			was: drv(nil, nil, env{"__json": `{"a":[1],"b":"x","outputs":["out"]}`}), is: drv(nil, nil, env{"__json": `{"a":[1,2],"b":"x","outputs":["out"]}`}),
			want: []handoff.Cause{{Kind: "environment", What: "a", From: "[1]", To: "[1,2]"}},
		},
		"hashes that follow from an input": {
			files: map[string]string{path('a', "lib.drv"): drv(nil, nil, env{"v": "1"}), path('b', "lib.drv"): drv(nil, nil, env{"v": "2"})},
			was:   drv([]string{path('a', "lib.drv")}, nil, env{"flags": "-L" + path('c', "lib") + "/lib -x"}),
			is:    drv([]string{path('b', "lib.drv")}, nil, env{"flags": "-L" + path('d', "lib") + "/lib -x"}),
			want:  []handoff.Cause{{Kind: "environment", What: "v", From: "1", To: "2", Via: []string{"lib"}}},
		},
		"a version, and what is below it is not told": {
			files: map[string]string{path('a', "go-1.21.3.drv"): drv([]string{path('c', "missing.drv")}, nil, none), path('b', "go-1.21.4.drv"): drv(nil, nil, none)},
			was:   drv([]string{path('a', "go-1.21.3.drv")}, nil, none), is: drv([]string{path('b', "go-1.21.4.drv")}, nil, none),
			want: []handoff.Cause{{Kind: "version", What: "go", From: "1.21.3", To: "1.21.4"}},
		},
		"dependencies that come and go": {
			was: drv([]string{path('a', "curl-8.drv")}, nil, none), is: drv([]string{path('b', "wget-2.drv")}, nil, none),
			want: []handoff.Cause{{Kind: "dependency", What: "wget", To: "wget-2"}, {Kind: "dependency", What: "curl", From: "curl-8"}},
		},
		"reached on two ways": {
			files: map[string]string{
				path('a', "lib.drv"): drv(nil, nil, env{"v": "1"}), path('b', "lib.drv"): drv(nil, nil, env{"v": "2"}),
				path('c', "one.drv"): drv([]string{path('a', "lib.drv")}, nil, none), path('d', "one.drv"): drv([]string{path('b', "lib.drv")}, nil, none),
				path('f', "two.drv"): drv([]string{path('a', "lib.drv")}, nil, none), path('g', "two.drv"): drv([]string{path('b', "lib.drv")}, nil, none),
			},
			was:  drv([]string{path('c', "one.drv"), path('f', "two.drv")}, nil, none),
			is:   drv([]string{path('d', "one.drv"), path('g', "two.drv")}, nil, none),
			want: []handoff.Cause{{Kind: "environment", What: "v", From: "1", To: "2", Via: []string{"one", "lib"}}},
		},
		"sources": {
			files: map[string]string{
				path('a', "api") + "/main.go": "1", path('b', "api") + "/main.go": "2",
				path('a', "api") + "/same": "1", path('b', "api") + "/same": "1",
				path('a', "api") + "/gone": "1",
				path('c', "go.sum"):        "1", path('d', "go.sum"): "2",
			},
			was: drv(nil, []string{path('a', "api"), path('c', "go.sum")}, none), is: drv(nil, []string{path('b', "api"), path('d', "go.sum")}, none),
			want: []handoff.Cause{{Kind: "source", What: "api/gone"}, {Kind: "source", What: "services/api/main.go"}, {Kind: "source", What: "go.sum"}},
		},
		"the part of a source that is used": {
			files: map[string]string{
				path('a', "source") + "/api/x": "1", path('b', "source") + "/api/x": "2",
				path('a', "source") + "/web/x": "1", path('b', "source") + "/web/x": "2",
			},
			was:  drv(nil, []string{path('a', "source")}, env{"src": path('a', "source") + "/web"}),
			is:   drv(nil, []string{path('b', "source")}, env{"src": path('b', "source") + "/web"}),
			want: []handoff.Cause{{Kind: "source", What: "source/web/x"}},
		},
		"sources that come and go": {
			was: drv(nil, []string{path('a', "old")}, none), is: drv(nil, []string{path('b', "new")}, none),
			want: []handoff.Cause{{Kind: "source", What: "new", To: "added"}, {Kind: "source", What: "old", From: "removed"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			files := maps.Clone(test.files)
			if files == nil {
				files = map[string]string{}
			}
			files["/was.drv"], files["/is.drv"] = test.was, test.is
			for file, text := range files {
				file = filepath.Join(root, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			physical := func(p string) string { return filepath.Join(root, p) }
			x := Explainer{Graph: derivation.NewGraph(func(p string) ([]byte, error) { return os.ReadFile(physical(p)) }),
				Files: []string{"README", "services/api/main.go"}, Physical: physical}
			got, err := x.Explain("/was.drv", "/is.drv")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Explain (-want +got):\n%s", diff)
			}
			if same, err := x.Explain("/is.drv", "/is.drv"); same != nil || err != nil {
				t.Errorf("Explain of one derivation = %v, %v", same, err)
			}
		})
	}
}

func TestExplainSaysWhatIsMissing(t *testing.T) {
	x := Explainer{Graph: derivation.NewGraph(func(string) ([]byte, error) { return nil, fs.ErrNotExist })}
	if _, err := x.Explain("/a.drv", "/b.drv"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/a.drv") {
		t.Errorf("Explain = %v, want an error that names the file", err)
	}
}

func TestCausesAreNotEndless(t *testing.T) {
	was, is := map[string]string{}, map[string]string{"long": strings.Repeat("x", 300) + "2"}
	was["long"] = strings.Repeat("x", 300) + "1"
	for i := range 50 {
		is[fmt.Sprintf("v%02d", i)] = "1"
	}
	files := map[string]string{"/was.drv": drv(nil, nil, was), "/is.drv": drv(nil, nil, is)}
	x := Explainer{Graph: derivation.NewGraph(func(p string) ([]byte, error) { return []byte(files[p]), nil })}
	got, err := x.Explain("/was.drv", "/is.drv")
	if err != nil || len(got) != maxCauses {
		t.Fatalf("%d causes, %v", len(got), err)
	}
	if c := got[0]; !strings.HasSuffix(c.From, "x1") || !strings.HasSuffix(c.To, "x2") || len(c.To) > 100 {
		t.Errorf("a long variable is told as %q → %q", c.From, c.To)
	}
}
