package deployset

import (
	"bytes"
	"compress/gzip"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/manifest"
)

// FuzzUnpack: whatever a Secret of the history holds, it is objects with that digest or an error.
func FuzzUnpack(f *testing.F) {
	packed, digest, err := pack([]manifest.Object{configMap("x", "a", "b")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed, digest)
	f.Add([]byte{}, "")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte("[]\n{}\nnull\n"))
	z.Close()
	f.Add(b.Bytes(), "")
	f.Fuzz(func(t *testing.T, packed []byte, digest string) {
		objects, err := unpack(packed, "x", digest)
		if err != nil {
			return
		}
		again, digestAgain, err := pack(objects)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unpack(again, "x", digestAgain); err != nil {
			t.Errorf("what was unpacked cannot be packed again: %v", err)
		}
	})
}

// FuzzParent: whatever is written in a parent's annotations, it is read or refused; what was read is written the same again.
func FuzzParent(f *testing.F) {
	f.Add("ConfigMap,Deployment.apps", "a,b", `{"deployed":{"commit":"c","at":"2026-01-01T00:00:00Z","version":3}}`)
	f.Add(",", ",,", "{}")
	f.Add("", "", "[")
	f.Fuzz(func(t *testing.T, kinds, namespaces, state string) {
		s := New(&cluster.Cluster{Namespace: "n"}, "x")
		parent := &unstructured.Unstructured{Object: map[string]any{}}
		parent.SetLabels(map[string]string{idLabel: s.ID})
		parent.SetAnnotations(map[string]string{toolingAnnotation: "flakeship/v1", kindsAnnotation: kinds, namespacesAnnotation: namespaces, stateAnnotation: state})
		if s.read(parent) != nil {
			return
		}
		if !s.scope.union(scope{}).equal(s.scope.union(s.scope)) {
			t.Errorf("%v", s.scope)
		}
		if s.CheckOrder(Record{}); s.Deployed() != nil {
			_ = s.Deployed().String()
		}
	})
}
