package push

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
)

// group is one repository: an image, or the images of several systems under one name.
type group struct {
	name    string
	repo    *repository
	tag     string // the image's own, or the index's
	members []*member
	start   time.Time
	missing atomic.Int32 // members that are neither in nor failed

	manifest registry.Manifest // of the image or index; without Bytes until somebody needs them
	result   handoff.PushedImage
	err      error
}

// member is one image for one system.
type member struct {
	Image
	group *group
	repo  *repository
	image *image.Image // nil when Present

	manifest registry.Manifest // what is, or will be, at the image's own tag; without Bytes when nobody read them
	same     bool              // it was there before
	placed   []v1.Descriptor   // of each layer, in this repository
	how      []how             // of each layer
	waiting  atomic.Int32      // tasks that are yet to place layers

	mu   sync.Mutex
	sent int64
	err  error
}

// fail keeps the first error.
func (m *member) fail(err error) {
	if err == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
	}
}

func (m *member) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// addSent counts bytes that were sent for the image, also those of a try that failed.
func (m *member) addSent(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent += n
}

// count adds how the member's layers got to the registry.
func (m *member) count(to *handoff.Layers) {
	for _, h := range m.how {
		switch h {
		case reused:
			to.Reused++
		case mounted:
			to.Mounted++
		case uploaded:
			to.Uploaded++
		}
	}
}

func (g *group) close() {
	for _, m := range g.members {
		if m.image != nil {
			m.image.Close() // files that were read; nothing can be lost
		}
	}
}

// hashLike is the form of a Nix hash.
var hashLike = regexp.MustCompile(`^[0-9a-z]{32}$`)

// isTag is the distribution specification's rule.
var isTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// plan sorts images into repositories and checks every name.
func (r *run) plan(images []Image) ([]*group, error) {
	var errs []error
	shared := slices.Concat(r.Tags, r.LearnTags)
	slices.Sort(shared)
	for _, tag := range slices.Compact(shared) {
		errs = append(errs, checkTag("tag", tag))
	}
	groups := map[string]*group{}
	for _, i := range images {
		errs = append(errs, checkTag("tag of image "+i.Name, i.Tag))
		if i.ImageTag != "" {
			errs = append(errs, checkTag("tag of image "+i.Name, i.ImageTag))
		}
		g := groups[i.Name]
		if g == nil {
			named, err := r.Client.Repository(r.Registry + "/" + i.Name)
			if err != nil {
				errs = append(errs, &NameError{fmt.Sprintf("image %q", i.Name), err})
				continue
			}
			repo := newRepository(named)
			g = &group{name: i.Name, repo: repo, start: time.Now()}
			groups[i.Name], r.repos[repo.Path()] = g, repo
		}
		if i.System != "" && slices.ContainsFunc(g.members, func(m *member) bool { return m.System == i.System }) {
			errs = append(errs, &NameError{fmt.Sprintf("image %q", i.Name), fmt.Errorf("it is there twice for %s", i.System)})
			continue
		}
		g.members = append(g.members, &member{Image: i, group: g, repo: g.repo})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var all []*group
	for _, g := range groups {
		slices.SortFunc(g.members, func(a, b *member) int {
			return cmp.Or(strings.Compare(a.System, b.System), strings.Compare(a.Tag, b.Tag))
		})
		g.missing.Store(int32(len(g.members)))
		g.tag = g.members[0].Tag
		if len(g.members) > 1 {
			g.tag = indexTag(g.members)
		}
		g.result = g.pending()
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *group) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}

// pending is the result of a group until there is another.
func (g *group) pending() handoff.PushedImage {
	p := handoff.PushedImage{
		Name: g.name, Repository: g.repo.String(), Tag: g.tag, Tags: []string{}, State: handoff.PushFailed, Error: "not reached",
		Systems: []string{},
	}
	for _, m := range g.members {
		if m.System != "" {
			p.Systems = append(p.Systems, m.System)
		}
	}
	return p
}

func checkTag(what, tag string) error {
	if isTag.MatchString(tag) {
		return nil
	}
	return &NameError{fmt.Sprintf("%s %q", what, tag), errors.New("a tag has letters, digits, points, hyphens and underscores, at most 128")}
}

// indexTag is the tag of an index, which no derivation stands for: made of its images' hashes, and as long as one.
func indexTag(members []*member) string {
	sum := sha256.New()
	for _, m := range members {
		fmt.Fprintf(sum, "%s %s\n", m.System, m.Tag)
	}
	const alphabet = "0123456789abcdfghijklmnpqrsvwxyz" // Nix's
	var b strings.Builder
	for _, c := range sum.Sum(nil) {
		b.WriteByte(alphabet[c%32])
	}
	return b.String()
}
