package main

import (
	"cmp"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/manifest"
)

// shortestSecret is how long a value must be to be masked: shorter ones are words and numbers that are in every log.
const shortestSecret = 5

// secretName is how variables are named that hold something secret.
var secretName = regexp.MustCompile(`(?i)(token|secret|passw|passphrase|credential|private|(api|access|signing|ssh|encryption)_?key|(^|_)auth(_|$)|kubeconfig)`)

// withFormer adds the objects as they were: pods of the version before still have its Secrets.
func withFormer(objects []manifest.Object, changes []apply.Change) []manifest.Object {
	all := slices.Clone(objects)
	for _, c := range changes {
		if c.Before != nil {
			all = append(all, manifest.Object{Unstructured: c.Before})
		}
	}
	return all
}

// masker makes a function that puts *** in the place of every value of the objects' Secrets, as text and in base64, and of the
// step's environment variables whose names say that they are secret. Of several lines each is masked by itself too.
func masker(objects []manifest.Object, environ []string) func(string) string {
	var values []string
	add := func(value string) {
		for _, v := range append(strings.Split(value, "\n"), value) {
			if v = strings.TrimSpace(v); len(v) >= shortestSecret && v != "false" {
				values = append(values, v)
			}
		}
	}
	for _, o := range objects {
		if o.GetKind() != "Secret" {
			continue
		}
		for _, field := range []string{"data", "stringData"} {
			data, _, _ := unstructured.NestedMap(o.Object, field)
			for _, v := range data {
				text, _ := v.(string)
				add(text)
				if plain, err := base64.StdEncoding.DecodeString(text); err == nil && field == "data" {
					add(string(plain))
				}
				if field == "stringData" && len(text) >= shortestSecret {
					add(base64.StdEncoding.EncodeToString([]byte(text)))
				}
			}
		}
	}
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); secretName.MatchString(name) {
			add(value)
		}
	}
	slices.SortFunc(values, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) }) // the longest first
	var pairs []string
	for _, v := range slices.Compact(values) {
		pairs = append(pairs, v, "***")
	}
	return strings.NewReplacer(pairs...).Replace
}
