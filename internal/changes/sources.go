package changes

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/derivation"
	"github.com/flakeship/flakeship/internal/handoff"
)

// maxFiles is how many files of one source are named.
const maxFiles = 8

// sources names the files that differ in the sources of a derivation.
func (x *Explainer) sources(old, now *derivation.Derivation) []handoff.Cause {
	gone, come := difference(set(old.InputSrcs), set(now.InputSrcs))
	var causes []handoff.Cause
	for _, is := range come {
		name := derivation.Name(is)
		i := slices.IndexFunc(gone, func(was string) bool { return derivation.Name(was) == name })
		if i < 0 {
			causes = append(causes, handoff.Cause{Kind: handoff.CauseSource, What: x.inRepository(name, ""), To: "added"})
			continue
		}
		files := x.different(gone[i], is, used(now, is))
		gone = slices.Delete(gone, i, i+1)
		for _, file := range files {
			causes = append(causes, handoff.Cause{Kind: handoff.CauseSource, What: x.inRepository(name, file)})
		}
	}
	for _, was := range gone {
		causes = append(causes, handoff.Cause{Kind: handoff.CauseSource, What: x.inRepository(derivation.Name(was), ""), From: "removed"})
	}
	return causes
}

func set(list []string) map[string]bool {
	m := map[string]bool{}
	for _, s := range list {
		m[s] = true
	}
	return m
}

// used are the parts of a source that a derivation speaks of, as paths below it; nil: all of it.
func used(d *derivation.Derivation, source string) []string {
	var parts []string
	for _, value := range append([]string{d.Builder, d.Env["__json"], strings.Join(d.Args, " ")}, values(d.Env)...) {
		for {
			_, rest, found := strings.Cut(value, source)
			if !found {
				break
			}
			value = rest
			if !strings.HasPrefix(rest, "/") {
				return nil
			}
			end := strings.IndexAny(rest, " \t\n\"':;,)}]$")
			if end < 0 {
				end = len(rest)
			}
			parts = append(parts, strings.Trim(rest[:end], "/"))
		}
	}
	return parts
}

func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// different are the files in which two sources differ, as paths below them, sorted; "" for sources that are a file themselves.
func (x *Explainer) different(was, is string, parts []string) []string {
	old, now := x.Physical(was), x.Physical(is)
	names := map[string]bool{}
	for _, root := range []string{old, now} {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // what cannot be read does not differ
			if err == nil && !d.IsDir() {
				rel, _ := filepath.Rel(root, path) // below it
				names[filepath.ToSlash(rel)] = true
			}
			return nil
		})
	}
	var files []string
	for name := range names {
		in := func(part string) bool { return part == "" || name == part || strings.HasPrefix(name, part+"/") }
		if parts != nil && !slices.ContainsFunc(parts, in) {
			continue
		}
		if !same(filepath.Join(old, name), filepath.Join(now, name)) {
			files = append(files, strings.TrimPrefix(name, "."))
		}
	}
	slices.Sort(files)
	return files[:min(len(files), maxFiles)]
}

// same says whether two files are: type, what Nix keeps of the mode, and content.
func same(a, b string) bool {
	infoA, errA := os.Lstat(a)
	infoB, errB := os.Lstat(b)
	if errA != nil || errB != nil || infoA.Mode().Type() != infoB.Mode().Type() || infoA.Mode()&0o100 != infoB.Mode()&0o100 {
		return false
	}
	if infoA.Mode()&fs.ModeSymlink != 0 {
		targetA, _ := os.Readlink(a)
		targetB, _ := os.Readlink(b)
		return targetA == targetB
	}
	return infoA.Size() == infoB.Size() && sameContent(a, b)
}

func sameContent(a, b string) bool {
	fileA, err := os.Open(a)
	if err != nil {
		return false
	}
	defer fileA.Close()
	fileB, err := os.Open(b)
	if err != nil {
		return false
	}
	defer fileB.Close()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fileA, bufA)
		m, errB := io.ReadFull(fileB, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return true // both end here: they are of one size
		}
	}
}

// inRepository is a file of a source as the repository names it: the changed file that ends in it, preferably in a folder of the
// source's name.
func (x *Explainer) inRepository(source, file string) string {
	path := strings.TrimSuffix(source+"/"+file, "/")
	tails := []string{path}
	if file != "" {
		tails = append(tails, file)
	}
	for _, tail := range tails {
		for _, f := range x.Files {
			if f == tail || strings.HasSuffix(f, "/"+tail) {
				return f
			}
		}
	}
	return path
}
