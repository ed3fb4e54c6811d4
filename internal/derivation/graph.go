package derivation

import (
	"fmt"
	"maps"
	"slices"
)

// Graph is the derivations of a store, read as they are asked for and once each. It is for one goroutine.
type Graph struct {
	read func(path string) ([]byte, error)
	seen map[string]*Derivation
}

// NewGraph returns a graph over a store; read returns the content of the file at a store path.
func NewGraph(read func(path string) ([]byte, error)) *Graph {
	return &Graph{read: read, seen: map[string]*Derivation{}}
}

// Get returns the derivation at a store path.
//
// Errors: those of reading the store, and *SyntaxError, both with the path.
func (g *Graph) Get(path string) (*Derivation, error) {
	if d := g.seen[path]; d != nil {
		return d, nil
	}
	text, err := g.read(path)
	if err != nil {
		return nil, fmt.Errorf("read derivation %s: %w", path, err)
	}
	d, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read derivation %s: %w", path, err)
	}
	g.seen[path] = d
	return d, nil
}

// Closure calls visit for each derivation that the given ones depend on, and for them; each once, those nearest first. The
// inputs of one for which visit returns false are left out, unless another needs them.
func (g *Graph) Closure(paths []string, visit func(path string, d *Derivation) (descend bool)) error {
	queue := slices.Clone(paths)
	queued := map[string]bool{}
	for _, path := range queue {
		queued[path] = true
	}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		d, err := g.Get(path)
		if err != nil {
			return err
		}
		if !visit(path, d) {
			continue
		}
		for _, input := range slices.Sorted(maps.Keys(d.InputDrvs)) {
			if !queued[input] {
				queued[input] = true
				queue = append(queue, input)
			}
		}
	}
	return nil
}
