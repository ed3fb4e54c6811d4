package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outline is file:line kind/namespace/name for each object.
func outline(objects []Object) []string {
	var lines []string
	for _, o := range objects {
		lines = append(lines, o.Source.String()+" "+o.ID())
	}
	return lines
}

func texts(problems []Problem) []string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return lines
}

const cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"

func TestDecode(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"one document", fmt.Sprintf(cm, "a"), []string{"f:1 ConfigMap/a"}},
		{"several", "# head\n---\n" + fmt.Sprintf(cm, "a") + "--- # next\n\n" + fmt.Sprintf(cm, "b"), []string{"f:3 ConfigMap/a", "f:8 ConfigMap/b"}},
		{"empty documents are skipped", "---\n---\n# only a comment\n---\nnull\n---\n" + fmt.Sprintf(cm, "a") + "---\n", []string{"f:7 ConfigMap/a"}},
		{"document end marks", fmt.Sprintf(cm, "a") + "...\n" + fmt.Sprintf(cm, "b"), []string{"f:1 ConfigMap/a", "f:5 ConfigMap/b"}},
		{"windows line ends", "---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: a}\r\n---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: b}\r\n", []string{"f:2 ConfigMap/a", "f:6 ConfigMap/b"}},
		{"byte order mark", "\ufeff" + fmt.Sprintf(cm, "a"), []string{"f:1 ConfigMap/a"}},
		{"a separator inside a block scalar is indented", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    ---\n    y\n", []string{"f:1 ConfigMap/a"}},
		{"a YAML directive", "%YAML 1.1\n---\n" + fmt.Sprintf(cm, "a"), []string{"f:3 ConfigMap/a"}},
		{"document on the separator's line", "--- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n", []string{"f:1 ConfigMap/a"}},
		{"flow style is not JSON", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n", []string{"f:1 ConfigMap/a"}},
		{"JSON", "\n{\"apiVersion\":\"v1\",\n\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\",\"namespace\":\"n\"}}", []string{"f:2 ConfigMap/n/a"}},
		{"JSON, one after the other", "{\"apiVersion\":\"v1\",\"kind\":\"A\",\"metadata\":{\"name\":\"a\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"B\",\"metadata\":{\"name\":\"b\"}}", []string{"f:1 A/a", "f:2 B/b"}},
		{"a List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: A\n  metadata: {name: a}\n- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: B\n    metadata: {name: b}\n", []string{"f:4 A/a", "f:10 B/b"}},
		{"a typed list", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n", []string{"f:4 ConfigMap/a"}},
		{"a JSON List", "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n{\"apiVersion\":\"v1\",\"kind\":\"A\",\"metadata\":{\"name\":\"a\"}},\n{\"apiVersion\":\"v1\",\"kind\":\"B\",\"metadata\":{\"name\":\"b\"}}]}", []string{"f:2 A/a", "f:3 B/b"}},
		{"a custom kind whose name ends in List", "apiVersion: x.org/v1\nkind: AllowList\nmetadata: {name: a}\nitems: [1, 2]\n", []string{"f:1 AllowList/a"}},
		{"anchors", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: &l {x: z}, annotations: *l}\n", []string{"f:1 ConfigMap/a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, problems := Decode("f", []byte(tt.text))
			if len(problems) > 0 {
				t.Fatalf("Decode(%q): problems %v", tt.text, problems)
			}
			if diff := cmp.Diff(tt.want, outline(objects)); diff != "" {
				t.Errorf("Decode(%q) (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestDecodeProblems(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"not YAML", fmt.Sprintf(cm, "a") + "---\nkind: X\n bad: indent: here\n", []string{"f:6: not YAML: mapping values are not allowed in this context"}},
		{"a tab", "kind:\n\tx: y\n", []string{"f:2: not YAML: found character that cannot start any token"}},
		{"an unclosed quote", "kind: \"x\nname: y\n", []string{"f:3: not YAML: found unexpected end of stream"}},
		{"JSON cut short", `{"kind": "A"`, []string{`f:1: not YAML: did not find expected ',' or '}'`}},
		{"a template", "kind: {{ .Kind }}\n", []string{`f:1: not YAML: invalid map key: map[interface {}]interface {}{".Kind":interface {}(nil)}`}},
		{"a key twice", "---\napiVersion: v1\nkind: A\nmetadata: {name: a}\nspec:\n  x: 1\n  x: 2\n", []string{`f:7: key "x" is given twice: a key may be given only once`}},
		{"a key twice in JSON", "{\"kind\":\"A\",\n\"kind\":\"B\"}", []string{`f:1: duplicate field "kind": a key may be given only once`}},
		{"text", "hello\n", []string{"f:1: text, not a Kubernetes object"}},
		{"a list", "- a\n", []string{"f:1: a list, not a Kubernetes object"}},
		{"values of a chart", "replicas: 3\n", []string{"f:1: object without an apiVersion", "f:1: object without a kind", "f:1: object without metadata.name"}},
		{"no kind", "apiVersion: v1\nmetadata: {name: a}\n", []string{"f:1: object without a kind"}},
		{"no name", "apiVersion: v1\nkind: A\nmetadata: {}\n", []string{"f:1: A without metadata.name"}},
		{"a generated name", "apiVersion: v1\nkind: A\nmetadata:\n  generateName: a-\n", []string{"f:4: A has a generateName: it would be another object each time, give it a name"}},
		{"a number for a name", "apiVersion: v1\nkind: A\nmetadata:\n  name: 7\n", []string{"f:4: A: metadata.name is a number: write it in quotes"}},
		{"metadata is no mapping", "apiVersion: v1\nkind: A\nmetadata: x\n", []string{"f:3: A: metadata is text, not a mapping"}},
		{"a label without quotes", "apiVersion: v1\nkind: A\nmetadata:\n  name: a\n  labels:\n    v: 1.0\n    w: yes\n", []string{
			"f:6: A a: metadata.labels.v is a number: write it in quotes", "f:7: A a: metadata.labels.w is a truth value: write it in quotes"}},
		{"in a List", "apiVersion: v1\nkind: List\nitems:\n- 7\n- apiVersion: v1\n  kind: A\n", []string{"f:4: a number, not a Kubernetes object", "f:5: A without metadata.name"}},
		{"all at once", "kind: [\n---\n" + fmt.Sprintf(cm, "a") + "---\napiVersion: a/b/c\nkind: A\nmetadata: {name: x}\n", []string{
			"f:1: not YAML: did not find expected node content", `f:7: apiVersion "a/b/c" is not group/version`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Decode("f", []byte(tt.text))
			if diff := cmp.Diff(tt.want, texts(problems)); diff != "" {
				t.Errorf("Decode(%q) (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestField(t *testing.T) {
	text := `---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: a}
  spec:
    template:
      spec:
        containers:
        - name: x
          image: one
        - name: y
          image:
            two
`
	objects, problems := Decode("f", []byte(text))
	if len(problems) > 0 || len(objects) != 1 {
		t.Fatalf("Decode: %v, %v", objects, problems)
	}
	for _, tt := range []struct {
		path []any
		want string
	}{
		{nil, "f:5"},
		{[]any{"spec", "template", "spec", "containers", 0, "image"}, "f:13"},
		{[]any{"spec", "template", "spec", "containers", 1, "image"}, "f:15"},
		{[]any{"spec", "template", "spec", "containers", 2, "image"}, "f:11"}, // the closest thing there is
		{[]any{"spec", "nothing"}, "f:8"},
		{[]any{"spec", 0}, "f:8"},
	} {
		if got := objects[0].Source.Field(tt.path...).String(); got != tt.want {
			t.Errorf("Field(%v) = %s, want %s", tt.path, got, tt.want)
		}
	}
}

func TestNumbersKeepTheirType(t *testing.T) {
	objects, _ := Decode("f", []byte(fmt.Sprintf(cm, "a")+"i: 9007199254740993\nf: 1.5\ns: \"1\"\nb: on\n"))
	want := map[string]any{"i": int64(9007199254740993), "f": 1.5, "s": "1", "b": true}
	got := map[string]any{}
	for key := range want {
		got[key] = objects[0].Object[key]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnique(t *testing.T) {
	objects, _ := Decode("f", []byte(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
---
{apiVersion: apps/v1beta2, kind: Deployment, metadata: {name: a, namespace: shop}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: other}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: shop}}
`))
	err := Unique(objects, "shop")
	want := "f:1: Deployment/shop/a is given twice, again at f:5 and f:9"
	if err == nil || err.Error() != want {
		t.Errorf("Unique = %v, want %s", err, want)
	}
	if err := Unique(objects[:2], "shop"); err != nil {
		t.Errorf("Unique = %v, want nil", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{fmt.Sprintf(cm, "a"), "---\r\n%YAML 1.1\n--- a\n...\n{", `{"kind":"List","items":[{}]}`, "a: &a [*a]", "? {a: b}\n: c\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		objects, problems := Decode("f", []byte(text))
		for _, o := range objects {
			if o.GetName() == "" || o.GetKind() == "" || o.GetAPIVersion() == "" {
				t.Errorf("object without identity: %v", o.Object)
			}
			if o.Source.Line < 1 || o.Source.Line > lines {
				t.Errorf("object at line %d of %d", o.Source.Line, lines)
			}
			if got := o.Source.Field("metadata", "name").Line; got < 1 || got > lines {
				t.Errorf("field at line %d of %d", got, lines)
			}
		}
		for _, p := range problems {
			var n int
			if _, err := fmt.Sscanf(p.At, "f:%d", &n); err != nil || n < 1 || n > lines+1 {
				t.Errorf("problem at %q of %d lines", p.At, lines)
			}
		}
		// A document put after others is read as it is alone.
		if again, _ := Decode("f", []byte(fmt.Sprintf(cm, "first")+"---\n"+text)); !strings.HasPrefix(strings.TrimSpace(text), "{") && !strings.HasPrefix(text, "%") && !strings.HasPrefix(text, "\ufeff") && len(again) < len(objects) {
			t.Errorf("%d objects alone, %d with one before", len(objects), len(again))
		}
	})
}
