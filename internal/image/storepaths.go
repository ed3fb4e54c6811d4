package image

import (
	"archive/tar"
	"fmt"
	"io"
	"regexp"
	"slices"
)

// inside finds the store path a member of a layer belongs to.
var inside = regexp.MustCompile(`^[./]*(nix/store/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]+)`)

// StorePaths lists the store paths whose files are in the image, sorted. Layers that are tars, as those of archives and base
// images, are read for it; WriteTar must not run for them at the same time.
func (i *Image) StorePaths() ([]string, error) {
	var all []string
	for _, l := range i.Layers {
		switch s := l.source.(type) {
		case *storeLayer:
			all = append(all, s.paths...)
		case *n2cSource:
			for _, p := range s.paths {
				all = append(all, p.Path)
			}
		default:
			found, err := listTar(s)
			if err != nil {
				return nil, fmt.Errorf("layer %s: %w", l.Name, err)
			}
			all = append(all, found...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// listTar lists the store paths in a layer's tar.
func listTar(s source) (paths []string, err error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.writeTar(w)) }()
	defer r.Close()
	last := ""
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return paths, nil
		}
		if err != nil {
			return nil, cut(err)
		}
		if m := inside.FindStringSubmatch(h.Name); m != nil && m[1] != last {
			last = m[1]
			paths = append(paths, "/"+m[1])
		}
	}
}
