package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Bounds on what an archive may make us keep in memory.
const (
	maxMembers  = 100_000  // a layer is four members and no runtime takes more than a few hundred layers
	maxManifest = 4 << 20  // manifest.json
	maxConfig   = 8 << 20  // an image config
	maxKept     = 32 << 20 // small members of a compressed archive, kept for the case that one is the config
	maxNames    = 16 << 20 // bytes of all names and links
)

// member is one file of an archive.
type member struct {
	size   int64
	offset int64 // of its first byte
	kept   []byte
	link   string // of a symbolic or hard link: the member it stands for
	sparse bool
}

// tarIndex is the table of contents a tar lacks.
type tarIndex struct {
	members map[string]*member
	twice   map[string]bool // names that several members have
}

// indexTar reads the headers of a tar. position tells how many bytes of it were read so far. With keep, small JSON members
// are kept: r cannot be read a second time.
func indexTar(r io.Reader, position func() (int64, error), keep bool) (*tarIndex, error) {
	x := &tarIndex{members: map[string]*member{}, twice: map[string]bool{}}
	tr := tar.NewReader(r)
	kept, names := int64(0), 0
	for count := 0; ; count++ {
		h, err := tr.Next()
		if err == io.EOF {
			return x, nil
		}
		if err != nil {
			return nil, cut(err)
		}
		if count == maxMembers {
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
		if names += len(h.Name) + len(h.Linkname); names > maxNames {
			return nil, fmt.Errorf("more than %d MiB of names", maxNames>>20)
		}
		m := &member{size: h.Size, sparse: h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != ""}
		if m.offset, err = position(); err != nil {
			return nil, err
		}
		name := memberName(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if keep && h.Size <= maxConfig && kept+h.Size <= maxKept && mayBeJSON(name) {
				kept += h.Size
				if m.kept, err = io.ReadAll(tr); err != nil {
					return nil, cut(err)
				}
			}
		case tar.TypeSymlink:
			m.link = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			m.link = memberName(h.Linkname)
		default:
			continue // folders; nothing else is looked for
		}
		if x.members[name] != nil {
			x.twice[name] = true // the first stays: a stream archive repeats layers of the same content
			continue
		}
		x.members[name] = m
	}
}

// has says whether there is a member of a name.
func (x *tarIndex) has(name string) bool { return x.members[name] != nil }

// find returns the regular member of a name, through links inside the archive.
func (x *tarIndex) find(name string) (*member, error) {
	m, _, err := x.follow(name)
	return m, err
}

// findOnce is find for a member that must not be there twice, nor any link to it: readers disagree which of them counts.
func (x *tarIndex) findOnce(name string) (*member, error) {
	m, twice, err := x.follow(name)
	if err == nil && twice {
		return nil, fmt.Errorf("it has %.200q twice", name)
	}
	return m, err
}

// follow is find that also says whether a name on the way is there twice.
func (x *tarIndex) follow(name string) (m *member, twice bool, err error) {
	at := memberName(name)
	for range 8 {
		m := x.members[at]
		twice = twice || x.twice[at]
		switch {
		case m == nil:
			return nil, twice, fmt.Errorf("it has no %.200q", name)
		case m.link != "":
			at = m.link
		case m.sparse:
			return nil, twice, fmt.Errorf("%.200q is a sparse file", name)
		default:
			return m, twice, nil
		}
	}
	return nil, twice, fmt.Errorf("%.200q leads through too many links", name)
}

// memberName is the form names are looked up in: GNU tar may put ./ in front. Nothing is ever written under these names.
func memberName(name string) string { return path.Clean(strings.TrimPrefix(name, "./")) }

// mayBeJSON says whether a member may be manifest or config: by name in all layouts up to docker 24, by digest since.
func mayBeJSON(name string) bool {
	return strings.HasSuffix(name, ".json") || strings.HasPrefix(name, "blobs/")
}

// cut explains the end of a file that was not written to its end.
func cut(err error) error {
	far := new(fs.PathError) // to a place that no file has
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF || errors.As(err, &far) && far.Op == "seek" {
		return errors.New("it is cut short")
	}
	return err
}
