package apply

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Begin comes once, after the dry runs and before the first write; its error keeps everything from being written.
func TestBegin(t *testing.T) {
	s := newServer(t, nil)
	c, begun := s.open(t), 0
	begin := func(context.Context) error {
		if begun++; len(s.requests) == 0 || s.writes() > 0 {
			t.Errorf("begin after %q", s.requests)
		}
		return errors.New("no")
	}
	changes, err := Objects(t.Context(), c, decode(t, configMaps("1", "a", "b")), Options{Begin: begin})
	if err == nil || err.Error() != "no" || begun != 1 || s.writes() > 0 || !slices.Equal(actions(changes), []string{"a skipped", "b skipped"}) {
		t.Errorf("%v, begun %d times, %v", err, begun, actions(changes))
	}
	if _, err := Objects(t.Context(), c, decode(t, configMaps("1", "a")), Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Objects(t.Context(), c, decode(t, configMaps("1", "a")), Options{Begin: begin}); err != nil || begun != 1 {
		t.Errorf("with nothing to write: %v, begun %d times", err, begun)
	}
}

func TestRefuse(t *testing.T) {
	s := newServer(t, nil)
	c := s.open(t)
	if _, err := Objects(t.Context(), c, decode(t, configMaps("1", "a", "b")), Options{}); err != nil {
		t.Fatal(err)
	}
	writes := s.writes()
	_, err := Objects(t.Context(), c, decode(t, configMaps("2", "a", "b", "c")), Options{Refuse: func(o *unstructured.Unstructured) string {
		if o.GetName() == "b" {
			return "it belongs to another set"
		}
		return ""
	}})
	if err == nil || !strings.HasSuffix(err.Error(), "ConfigMap/n/b: it belongs to another set") || s.writes() != writes {
		t.Errorf("%v, %d writes", err, s.writes()-writes)
	}
}
