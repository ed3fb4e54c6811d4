package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxFile bounds what is read into memory; an API server takes objects of up to 3 MiB.
const maxFile = 64 << 20

// Read reads the objects of every input: a file, a folder with all it holds, a glob (** stands for any number of folders),
// or "-" for stdin. Within a folder, files that end in .yaml, .yml and .json count, hidden ones do not; a file that is
// named itself may have any name. A file that is reached twice is read once. Objects come in the order of the inputs,
// those of a folder or glob by path.
//
// Errors: *Error, with every problem of every input; ctx.Err() when ctx ends while stdin is awaited.
func Read(ctx context.Context, inputs []string, stdin io.Reader) ([]Object, error) {
	r := reader{seen: map[string]bool{}}
	for _, input := range inputs {
		if input == "-" {
			text, err := readStdin(ctx, stdin)
			if err != nil {
				return nil, err
			}
			r.text("stdin", "stdin.yaml", text)
			continue
		}
		r.input(input)
	}
	if len(r.objects) == 0 && len(r.problems) == 0 {
		r.problem(strings.Join(inputs, ", "), "no Kubernetes object in it")
	}
	if err := asError(r.problems); err != nil {
		return nil, err
	}
	return r.objects, nil
}

// readStdin leaves its goroutine behind when ctx ends: a read from a terminal cannot be interrupted.
func readStdin(ctx context.Context, stdin io.Reader) ([]byte, error) {
	type answer struct {
		text []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(stdin, maxFile))
		done <- answer{text, err}
	}()
	select {
	case a := <-done:
		return a.text, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type reader struct {
	seen     map[string]bool // real paths of files
	objects  []Object
	problems []Problem
}

func (r *reader) problem(at, format string, args ...any) {
	r.problems = append(r.problems, Problem{at, fmt.Sprintf(format, args...)})
}

func (r *reader) text(file, out string, text []byte) {
	objects, problems := decode(file, out, text)
	r.objects = append(r.objects, objects...)
	r.problems = append(r.problems, problems...)
}

func (r *reader) input(input string) {
	info, err := os.Stat(input)
	switch {
	case err == nil && info.IsDir():
		if r.folder(input, input, 0) == 0 {
			r.problem(input, "no .yaml, .yml or .json file in this folder")
		}
	case err == nil:
		r.file(filepath.Dir(input), input)
	case !strings.ContainsAny(input, "*?["):
		r.problem(input, "cannot be read: %v", cause(err))
	default:
		matches, err := glob(input)
		if err != nil {
			r.problem(input, "not a pattern: %v", err)
		} else if len(matches) == 0 {
			r.problem(input, "no file matches this pattern")
		}
		for _, match := range matches {
			if info, err := os.Stat(match); err == nil && info.IsDir() {
				r.folder(fixed(input), match, 0)
			} else {
				r.file(fixed(input), match)
			}
		}
	}
}

// folder reads all manifests below dir and returns how many files that were. Links are followed, as Nix outputs are full
// of them.
func (r *reader) folder(root, dir string, depth int) (files int) {
	if depth > 100 {
		r.problem(dir, "more than 100 folders deep: is there a link to a folder above?")
		return 1
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.problem(dir, "cannot be read: %v", cause(err))
		return 1
	}
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(dir, name)
		if strings.HasPrefix(name, ".") {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			r.problem(path, "cannot be read: %v", cause(err))
		case info.IsDir():
			files += r.folder(root, path, depth+1)
		case slices.Contains([]string{"kustomization.yaml", "kustomization.yml", "Kustomization"}, name):
			r.problem(path, "a kustomization is not applied as it is: give the output of `kustomize build`")
			files++
		case slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			r.file(root, path)
			files++
		}
	}
	return files
}

// file reads the file at path, which was found below root.
func (r *reader) file(root, path string) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		r.problem(path, "cannot be read: %v", cause(err))
		return
	}
	if r.seen[real] {
		return
	}
	r.seen[real] = true
	f, err := os.Open(path)
	if err != nil {
		r.problem(path, "cannot be read: %v", cause(err))
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		r.problem(path, "cannot be read: %v", cause(err))
	case len(text) > maxFile:
		r.problem(path, "more than %d MiB", maxFile>>20)
	default:
		r.text(path, below(root, path), text)
	}
}

// below is path as seen from root.
func below(root, path string) string {
	if rel, err := filepath.Rel(root, path); err == nil {
		return rel
	}
	return filepath.Base(path)
}

// fixed is the part of a pattern before its first wildcard, up to a folder.
func fixed(pattern string) string {
	if i := strings.IndexAny(pattern, "*?["); i >= 0 {
		pattern = pattern[:i]
	}
	return filepath.Dir(pattern + "x")
}

// cause drops the operation and path from an error of package os: the message names the path already.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// glob is filepath.Glob with ** for any number of folders. Hidden files are found only by a pattern that begins with a dot.
func glob(pattern string) ([]string, error) {
	before, after, deep := strings.Cut(pattern, "**")
	hidden := strings.HasPrefix(filepath.Base(pattern), ".")
	if !deep {
		found, err := filepath.Glob(pattern)
		return slices.DeleteFunc(found, func(path string) bool { return !hidden && strings.HasPrefix(filepath.Base(path), ".") }), err
	}
	if _, err := filepath.Match(strings.ReplaceAll(after, "**", "*"), ""); err != nil {
		return nil, err
	}
	root := filepath.Dir(before + "x")
	if strings.ContainsAny(root, "*?[") {
		return nil, errors.New("** must come before other wildcards of folders")
	}
	match, err := compile(filepath.Clean(pattern))
	if err != nil {
		return nil, err
	}
	var found []string
	err = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(entry.Name(), ".") && path != root && (entry.IsDir() || !hidden):
			if entry.IsDir() {
				return filepath.SkipDir
			}
		case !entry.IsDir() && match.MatchString(filepath.Clean(path)):
			found = append(found, path)
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return found, err
}

// compile turns a pattern into an expression for whole paths.
func compile(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("^")
	for rest := pattern; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "**/"):
			b.WriteString("(.*/)?")
			rest = rest[3:]
		case strings.HasPrefix(rest, "**"):
			b.WriteString(".*")
			rest = rest[2:]
		case rest[0] == '*':
			b.WriteString("[^/]*")
			rest = rest[1:]
		case rest[0] == '?':
			b.WriteString("[^/]")
			rest = rest[1:]
		case rest[0] == '[' && strings.Contains(rest, "]"):
			end := strings.IndexByte(rest, ']') + 1
			b.WriteString(rest[:end])
			rest = rest[end:]
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
			rest = rest[1:]
		}
	}
	return regexp.Compile(b.String() + "$")
}
