package resolve

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// parse returns a reference and its repository in normal form: registry host first, the host in lower case and without the
// default port of https.
func parse(text string) (repo string, named reference.Named, err error) {
	if host, rest, ok := strings.Cut(text, "/"); ok && strings.ContainsAny(host, ".:") {
		host = strings.ToLower(host)
		if short := strings.TrimSuffix(host, ":443"); strings.Contains(short, ".") { // without dot or port it would be no host
			host = short
		}
		text = host + "/" + rest
	}
	named, err = reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", nil, err
	}
	return named.Name(), named, nil
}

func digested(named reference.Named) bool {
	_, ok := named.(reference.Digested)
	return ok
}

// bare returns the name in a reference without a registry host: api for api:v1; empty when there is a host.
func bare(text string) string {
	name, _, _ := strings.Cut(text, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	if host, _, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost" || host != strings.ToLower(host)) {
		return ""
	}
	return name
}

// prefix is the normal form of a push result's registry, with a final slash. Docker Hub as a whole is nobody's own: it
// gives an empty prefix.
func prefix(registry string) string {
	repo, _, err := parse(strings.TrimSuffix(registry, "/") + "/x")
	if err != nil || registry == "" {
		return ""
	}
	repo = strings.TrimSuffix(repo, "x")
	if repo == "docker.io/" || repo == "docker.io/library/" {
		return ""
	}
	return repo
}

// unmatched tells of an image that no field names. Most likely it is misspelt somewhere, so what looks like it is
// shown.
func unmatched(one *target, others []found) string {
	base := last(one.name)
	var near []string
	for _, f := range others {
		if name := last(f.named.Name()); name == base || len(nearest(name, []string{base})) > 0 {
			near = append(near, fmt.Sprintf("%s (%s)", f.text, f.source()))
		}
	}
	text := fmt.Sprintf("image %s is named by no object", one.name)
	if slices.Sort(near); len(near) > 0 {
		text += "; near: " + strings.Join(slices.Compact(near), ", ")
	}
	return text
}

// last is a repository's last part.
func last(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// nearest returns the names that are one or two typing errors away from name, or have the same last part, sorted.
func nearest(name string, names []string) (near []string) {
	for _, other := range names {
		limit := min(2, (len(other)-1)/2) // short names are all alike
		if other != name && (last(other) == last(name) || distance(name, other) <= limit) {
			near = append(near, other)
		}
	}
	slices.Sort(near)
	return near
}

// distance counts the bytes to insert, delete or replace to get from a to b.
func distance(a, b string) int {
	if len(a) > 255 || len(b) > 255 { // no registry takes such a name
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
