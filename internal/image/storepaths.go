package image

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// inside finds the store path a member of a layer belongs to.
var inside = regexp.MustCompile(`^[./]*(nix/store/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]+)`)

// Contents is what an image is made of.
type Contents struct {
	StorePaths []string // that have files in the image, sorted
	Merged     []string // those among them whose files are not where the path says, sorted
	Loose      []Loose  // files of which the image does not say what store path they come from, by layer
}

// Loose is a layer's files outside of the store.
type Loose struct {
	Layer  int // from 1
	DiffID v1.Hash
	Files  []string // slash-separated, without leading slash; regular files only
}

// Contents says what is in the image. Layers that are tars, as those of archives and base images, are read for it; WriteTar must not
// run for them at the same time.
func (i *Image) Contents() (Contents, error) {
	var c Contents
	named := func(paths []n2cPath) {
		for _, p := range paths {
			c.StorePaths = append(c.StorePaths, p.Path)
			if p.Options != nil && p.Options.Rewrite.Regex != "" {
				c.Merged = append(c.Merged, p.Path)
			}
		}
	}
	for n, l := range i.Layers {
		switch s := l.source.(type) {
		case *storeLayer:
			c.StorePaths = append(c.StorePaths, s.paths...)
			continue
		case *n2cSource:
			for _, p := range s.paths {
				named([]n2cPath{p.n2cPath})
			}
			continue
		case *n2cFile:
			named(s.paths)
		}
		paths, files, err := listTar(l.source)
		if err != nil {
			return Contents{}, fmt.Errorf("layer %s: %w", l.Name, err)
		}
		c.StorePaths = append(c.StorePaths, paths...)
		if len(files) > 0 {
			c.Loose = append(c.Loose, Loose{n + 1, l.DiffID, files})
		}
	}
	for _, paths := range []*[]string{&c.StorePaths, &c.Merged} {
		slices.Sort(*paths)
		*paths = slices.Compact(*paths)
	}
	return c, nil
}

// listTar lists the store paths in a layer's tar, and the files outside of the store.
func listTar(s source) (paths, files []string, err error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.writeTar(w)) }()
	defer r.Close()
	last := ""
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return paths, files, nil
		}
		if err != nil {
			return nil, nil, cut(err)
		}
		m := inside.FindStringSubmatch(h.Name)
		switch {
		case m == nil && h.Typeflag == tar.TypeReg && !strings.HasPrefix(path.Base(h.Name), ".wh."): // which takes away
			files = append(files, strings.TrimPrefix(path.Clean("/"+h.Name), "/"))
		case m != nil && m[1] != last:
			last = m[1]
			paths = append(paths, "/"+m[1])
		}
	}
}
