package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Decode returns the objects in text, which came from file: YAML or JSON, any number of documents, Lists unpacked. What can
// be read is returned even when there are problems.
func Decode(file string, text []byte) ([]Object, []Problem) { return decode(file, file, text) }

func decode(file, out string, text []byte) ([]Object, []Problem) {
	d := decoder{file: file, in: &origin{out, bytes.TrimPrefix(text, []byte("\ufeff"))}}
	if !d.json(d.in.text) {
		for _, doc := range split(d.in.text) {
			doc.in = d.in
			d.yaml(doc)
		}
	}
	return d.objects, d.problems
}

type decoder struct {
	file     string
	in       *origin
	objects  []Object
	problems []Problem
}

func (d *decoder) problem(line int, format string, args ...any) {
	d.problems = append(d.problems, Problem{fmt.Sprintf("%s:%d", d.file, line), fmt.Sprintf(format, args...)})
}

// json reads text as JSON values, one after the other. It reports false, and does nothing, when text is anything else: YAML
// may begin with a brace too.
func (d *decoder) json(text []byte) bool {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return false
	}
	var docs []*document
	dec := json.NewDecoder(bytes.NewReader(text))
	for dec.More() {
		var raw json.RawMessage
		if dec.Decode(&raw) != nil {
			return false
		}
		at := int(dec.InputOffset()) - len(raw)
		docs = append(docs, &document{in: d.in, at: at, text: raw, first: 1 + bytes.Count(text[:at], []byte("\n"))})
	}
	if len(bytes.TrimSpace(text[dec.InputOffset():])) > 0 {
		return false
	}
	for _, doc := range docs {
		d.value(doc, doc.text, doc.first)
	}
	return true
}

// yamlLine is how the YAML library names lines in its messages.
var yamlLine = regexp.MustCompile(`^line (\d+): `)

func (d *decoder) yaml(doc *document) {
	start, blank := contentLine(doc)
	if blank {
		return
	}
	text, err := yaml.YAMLToJSONStrict(doc.text)
	if err == nil {
		d.value(doc, text, start)
		return
	}
	// One message may hold several lines: "yaml: unmarshal errors:\n  line 3: ...\n  line 5: ...".
	message := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
	for line := range strings.Lines(strings.TrimPrefix(message, "unmarshal errors:\n")) {
		line, at := strings.TrimSpace(line), start
		if m := yamlLine.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1]) // digits only
			line, at = line[len(m[0]):], doc.inFile(n)
		}
		if strings.HasSuffix(line, "already set in map") {
			d.problem(at, "%s: a key may be given only once", strings.Replace(line, "already set in map", "is given twice", 1))
		} else {
			d.problem(at, "not YAML: %s", line)
		}
	}
}

// value reads one JSON value that begins at line.
func (d *decoder) value(doc *document, text []byte, line int) {
	var v any
	strict, err := sigsjson.UnmarshalStrict(text, &v, sigsjson.DisallowDuplicateFields)
	if err != nil {
		d.problem(line, "not JSON: %v", err)
		return
	}
	for _, err := range strict {
		d.problem(line, "%v: a key may be given only once", err)
	}
	if v == nil || len(strict) > 0 {
		return
	}
	d.object(v, Source{File: d.file, Line: line, doc: doc})
}

// object takes one value as an object, or a List of them.
func (d *decoder) object(v any, source Source) {
	content, ok := v.(map[string]any)
	if !ok {
		d.problem(source.Line, "%s, not a Kubernetes object", shape(v))
		return
	}
	if items, ok := list(content); ok {
		for i, item := range items {
			path := append(append([]any(nil), source.path...), "items", i)
			member := Source{File: source.File, Line: source.Line, doc: source.doc, path: path}
			d.object(item, member.Field())
		}
		return
	}
	o := Object{&unstructured.Unstructured{Object: content}, source}
	if problems := check(o); len(problems) > 0 {
		d.problems = append(d.problems, problems...)
		return
	}
	d.objects = append(d.objects, o)
}

// list returns the members of a List, or of a typed list such as a PodList. A custom kind may end in List too, but then it
// has a name.
func list(content map[string]any) ([]any, bool) {
	items, ok := content["items"].([]any)
	meta, _ := content["metadata"].(map[string]any)
	return items, ok && meta["name"] == nil && strings.HasSuffix(text(content["kind"]), "List")
}

func text(v any) string { s, _ := v.(string); return s }

// shape names what was found where an object should be.
func shape(v any) string {
	switch v.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return "text"
	case bool:
		return "a truth value"
	case nil:
		return "nothing"
	}
	return "a number"
}

// check finds what every object needs and no server is required for.
func check(o Object) (problems []Problem) {
	report := func(path []any, format string, args ...any) {
		problems = append(problems, Problem{o.Source.Field(path...).String(), fmt.Sprintf(format, args...)})
	}
	kind, apiVersion := text(o.Object["kind"]), text(o.Object["apiVersion"])
	what := "object"
	if kind != "" {
		what = kind
	}
	if apiVersion == "" {
		report(nil, "%s without an apiVersion", what)
	} else if _, err := schema.ParseGroupVersion(apiVersion); err != nil {
		report([]any{"apiVersion"}, "apiVersion %q is not group/version", apiVersion)
	}
	if kind == "" {
		report(nil, "object without a kind")
	}
	meta, ok := o.Object["metadata"].(map[string]any)
	if !ok {
		if found := o.Object["metadata"]; found != nil {
			report([]any{"metadata"}, "%s: metadata is %s, not a mapping", what, shape(found))
		} else {
			report(nil, "%s without metadata.name", what)
		}
		return problems
	}
	name := text(meta["name"])
	switch {
	case name != "":
		what += " " + name
	case meta["name"] != nil && meta["name"] != "":
		report([]any{"metadata", "name"}, "%s: metadata.name is %s: write it in quotes", what, shape(meta["name"]))
	case meta["generateName"] != nil:
		report([]any{"metadata", "generateName"}, "%s has a generateName: it would be another object each time, give it a name", what)
	default:
		report(nil, "%s without metadata.name", what)
	}
	if ns := meta["namespace"]; ns != nil && text(ns) == "" && ns != "" {
		report([]any{"metadata", "namespace"}, "%s: metadata.namespace is %s: write it in quotes", what, shape(ns))
	}
	for _, field := range []string{"labels", "annotations"} {
		if meta[field] == nil {
			continue
		}
		pairs, ok := meta[field].(map[string]any)
		if !ok {
			report([]any{"metadata", field}, "%s: metadata.%s is %s, not a mapping", what, field, shape(meta[field]))
		}
		for _, key := range sortedKeys(pairs) {
			if v := pairs[key]; v != nil {
				if _, ok := v.(string); !ok {
					report([]any{"metadata", field, key}, "%s: metadata.%s.%s is %s: write it in quotes", what, field, key, shape(v))
				}
			}
		}
	}
	return problems
}
