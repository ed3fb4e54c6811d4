package apply

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fromJSON(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// What fieldsV1 names is cut out of the live object, with every form a path element has.
func TestProject(t *testing.T) {
	tests := []struct{ name, fields, live, want string }{
		{"keys of a map", `{"f:data":{"f:a":{}}}`, `{"data":{"a":"1","b":"2"},"kind":"x"}`, `{"data":{"a":"1"}}`},
		{"owned whole", `{"f:selector":{}}`, `{"selector":{"a":"1","b":"2"}}`, `{"selector":{"a":"1","b":"2"}}`},
		{"gone", `{"f:data":{"f:a":{}}}`, `{"data":{}}`, `{"data":{"a":"\u0000absent"}}`},
		{"an element by its keys", `{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:name":{}}}}`,
			`{"ports":[{"port":80,"protocol":"UDP","name":"u"},{"port":80,"protocol":"TCP","name":"t","nodePort":30000}]}`, `{"ports":[{"port":80,"name":"t"}]}`},
		{"an element that is gone", `{"f:c":{"k:{\"name\":\"a\"}":{"f:name":{}},"k:{\"name\":\"b\"}":{"f:name":{}}}}`, `{"c":[{"name":"b"}]}`, `{"c":[{"name":"b"},"\u0000absent"]}`},
		{"members of a set", `{"f:finalizers":{".":{},"v:\"x/y\"":{}}}`, `{"finalizers":["a/b","x/y"]}`, `{"finalizers":["x/y"]}`},
		{"by index", `{"f:l":{"i:1":{}}}`, `{"l":["a","b"]}`, `{"l":["b"]}`},
		{"in the live order", `{"f:c":{"k:{\"name\":\"a\"}":{"f:name":{}},"k:{\"name\":\"b\"}":{"f:name":{}}}}`, `{"c":[{"name":"b"},{"name":"a"}]}`, `{"c":[{"name":"b"},{"name":"a"}]}`},
		{"no longer a map", `{"f:a":{"f:b":{}}}`, `{"a":7}`, `{"a":7}`},
	}
	for _, tt := range tests {
		got := project(fromJSON(t, tt.fields), fromJSON(t, tt.live))
		if diff := cmp.Diff(any(fromJSON(t, tt.want)), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestWithout(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"a":{"b":{"c":1}},"d":2}`, `{"d":2}`},
		{`{"a":{"b":{"c":1},"x":1}}`, `{"a":{"x":1}}`},
		{`{"a":{"b":{}}}`, `{"a":{"b":{}}}`},
		{`{"a":{}}`, `{"a":{}}`},
		{`{"a":7}`, `{"a":7}`},
		{`{}`, `{}`},
	} {
		in := fromJSON(t, tt.in)
		if diff := cmp.Diff(fromJSON(t, tt.want), without(in, "a", "b", "c")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
		if diff := cmp.Diff(fromJSON(t, tt.in), in); diff != "" {
			t.Errorf("%s was changed:\n%s", tt.in, diff)
		}
	}
}

const liveConfigMap = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"ns","uid":"u","managedFields":[
	{"manager":"other","operation":"Update","apiVersion":"v1","fieldsV1":{"f:data":{"f:b":{}}}},
	{"manager":"flakeship","operation":"Apply","apiVersion":"v1","fieldsV1":{"f:data":{"f:a":{}}}}]},"data":{"a":"1","b":"2"}}`

// Only an object of which we own what the manifest has, with its values, is proven to need nothing.
func TestProven(t *testing.T) {
	const manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: ns}, data: {a: '1'}}"
	tests := []struct {
		name, manifest string
		edit           func(live map[string]any)
		want           bool
	}{
		{"as it should be", manifest, func(map[string]any) {}, true},
		{"another value in the manifest", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: ns}, data: {a: '2'}}", func(map[string]any) {}, false},
		{"another field", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: ns}, data: {a: '1', c: '1'}}", func(map[string]any) {}, false},
		{"a field that somebody else has, with this value", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: ns}, data: {a: '1', b: '2'}}", func(map[string]any) {}, false},
		{"a field less", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: ns}}", func(map[string]any) {}, false},
		{"a label", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: ns, labels: {l: m}}, data: {a: '1'}}", func(map[string]any) {}, false},
		{"the value was changed behind our back", manifest, func(o map[string]any) { o["data"].(map[string]any)["a"] = "3" }, false},
		{"the field was taken", manifest, func(o map[string]any) {
			fields := o["metadata"].(map[string]any)["managedFields"].([]any)
			fields[1].(map[string]any)["fieldsV1"] = map[string]any{}
		}, false},
		{"applied in another version", manifest, func(o map[string]any) {
			fields := o["metadata"].(map[string]any)["managedFields"].([]any)
			fields[1].(map[string]any)["apiVersion"] = "v2"
		}, false},
		{"applied by somebody else", manifest, func(o map[string]any) {
			fields := o["metadata"].(map[string]any)["managedFields"].([]any)
			fields[1].(map[string]any)["manager"] = "kubectl"
		}, false},
		{"no record at all", manifest, func(o map[string]any) { delete(o["metadata"].(map[string]any), "managedFields") }, false},
		{"a mark of something else", manifest, func(o map[string]any) {
			o["metadata"].(map[string]any)["annotations"] = map[string]any{MarkAnnotation: "x.y"}
		}, false},
	}
	for _, tt := range tests {
		live := decode(t, liveConfigMap)[0]
		tt.edit(live.Object)
		it := newItem(decode(t, tt.manifest)[0])
		it.live = live.Unstructured
		if got := it.proven(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
