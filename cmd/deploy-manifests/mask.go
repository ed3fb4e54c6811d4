package main

import (
	"cmp"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/manifest"
)

// shortestSecret is how long a value must be to be masked: shorter ones are words and numbers that are in every log.
const shortestSecret = 5

// secretName is how variables are named that hold something secret.
var secretName = regexp.MustCompile(`(?i)(token|secret|passw|passphrase|credential|private|(api|access|signing|ssh|encryption)_?key|(^|_)auth(_|$)|kubeconfig)`)

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
