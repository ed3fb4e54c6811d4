// Package push brings images to a registry, and nothing else writes to registries.
//
// A registry names layers by the digest of their compressed form, Nix by that of the tar inside. What connects the two is
// in the registry itself: the config of an image that is there lists the tars, its manifest the blobs. So Images first
// reads, for each repository, an image or two; a layer found in one of them is not written, compressed or sent, on a runner
// that has never seen it before. What is known in another repository is mounted from there. The rest is compressed once
// and sent once for all repositories.
//
// The order is blobs, config, manifest, tags: whatever happens, no manifest names a blob that is not there.
package push

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
)

// Image is one image for one system.
type Image struct {
	Name     string // the repository below the prefix
	Tag      string // identifies the content: the Nix hash
	ImageTag string // another tag for it, empty: none
	System   string // Nix's, such as x86_64-linux; empty: as the image says

	Path  string        // on disk
	Store handoff.Store // of Path

	// LayerTags are tags of the repository that were seen to have all of its layers. They are read whatever else is: what the layers
	// are made of may not be on this machine.
	LayerTags []string

	// Present says that the registry was seen to have the image, with Digest when that is not empty: Path is not looked at.
	Present bool
	Digest  string

	// Pinned says of a Present image that Digest is what is meant, wherever its tag points now: another system's image may have
	// got it.
	Pinned bool

	// Missing says why there is no image to push, such as a build that failed. It fails, and the others are pushed.
	Missing string
}

// Options says how images are pushed. Client and Registry are required.
type Options struct {
	Client    *registry.Client // with the right to write
	Registry  string           // prefix: host, and path if there is one
	Tags      []string         // for each image, beside its own; moved when all images are in
	LearnTags []string         // of images to learn layers from; nil: Tags
	NoLearn   bool             // what the registry says of its layers is not read, nor which image is at a tag
	Verify    bool             // each blob that is not sent is asked for, although a manifest names it

	Exec bool // stream scripts are run, as image.Exec does

	Format Format // of what is written; the zero value is OCI

	Compression Compression // of layers that are sent; the zero value is gzip
	Level       int         // 0: the compression's usual one
	Temp        string      // folder for layers between compression and sending; empty: os.TempDir
	Workers     int         // layers compressed at a time; 0: the number of processors

	Progress *Progress // nil: nobody looks

	// Annotations are on every manifest and index that is written. An image that is there already is written anew for those
	// it lacks, unless it is Present.
	Annotations map[string]string

	Attach func(context.Context, Subject) ([]Attachment, error) // says what is to be beside each image and index; nil: nothing

	// Check is for what is signed: nothing that a runtime would not notice is taken on the registry's word. So a stream image's
	// layers are written to know their digests, whatever a tag or a layer's streamconf.KeyAnnotation says.
	Check bool

	Done   func(handoff.PushedImage, time.Duration) // told of each image when it is in or has failed; one call at a time
	Debugf func(format string, args ...any)         // told what was learned and decided
}

// Progress is how far Images is. It may be read while Images runs; the totals grow as more is found out.
type Progress struct {
	Images, ImagesDone   atomic.Int64
	Compress, Compressed atomic.Int64 // bytes of layers' tars
	Send, Sent           atomic.Int64 // bytes of blobs, tries that failed included
}

// ImageError is an image that did not get into the registry.
type ImageError struct {
	Name string
	Err  error
}

func (e *ImageError) Error() string { return fmt.Sprintf("push %s: %v", e.Name, e.Err) }
func (e *ImageError) Unwrap() error { return e.Err }

// MissingError is an image that there is nothing to push of.
type MissingError struct{ Reason string }

func (e *MissingError) Error() string { return e.Reason }

// StaleError says that the registry is not what it was when the images were planned.
type StaleError struct {
	Reference string
	Want, Got string // digests; Got is empty when there is nothing
}

func (e *StaleError) Error() string {
	switch {
	case e.Got == "":
		return e.Reference + " is not in the registry any more"
	case e.Want == "":
		return fmt.Sprintf("%s is %s", e.Reference, e.Got)
	}
	return fmt.Sprintf("%s is %s, not %s as it was", e.Reference, e.Got, e.Want)
}

// ClaimError is a layer that is not what an image in the registry says of its key.
type ClaimError struct{ *image.DigestError }

func (e *ClaimError) Error() string {
	return fmt.Sprintf("layer %s has digest %s; an image in the registry claims %s", e.Layer, e.Got, e.Want)
}

// NameError says that something cannot be a repository or tag.
type NameError struct {
	What string // such as `image name "A B"`
	Err  error
}

func (e *NameError) Error() string { return e.What + ": " + e.Err.Error() }
func (e *NameError) Unwrap() error { return e.Err }

// TagError says that the registry has a tag and does not let it be moved.
type TagError struct {
	Reference string
	At        string // digest of what is there
	Err       error  // the registry's words
}

func (e *TagError) Error() string {
	return fmt.Sprintf("%s is %s and cannot be moved: %v", e.Reference, e.At, e.Err)
}
func (e *TagError) Unwrap() error { return e.Err }

// run is one call of Images.
type run struct {
	Options
	known  *knowledge
	repos  map[string]*repository // by path
	slots  chan struct{}          // one for each layer that is compressed
	spool  *semaphore.Weighted    // bytes of layers that wait to be sent
	gzip   gzipBounds
	doneMu sync.Mutex
}

// Images pushes images and returns what the registry has of them then, one entry for each name, sorted. Images of one name
// and several systems become an OCI index.
//
// An image that fails does not keep the others from being pushed; then tags other than the images' own are not moved.
//
// Errors, joined:
//   - *NameError before anything is sent
//   - *ImageError for each image that failed, wrapping what the packages image and registry return, *StaleError, *MissingError
//     or *TagError
//   - ctx.Err() when ctx ends first
func Images(ctx context.Context, images []Image, o Options) ([]handoff.PushedImage, error) {
	r := newRun(o)
	groups, err := r.plan(images)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, g := range groups {
			g.close()
		}
	}()
	var members []*member
	for _, g := range groups {
		members = append(members, g.members...)
	}
	r.Progress.Images.Add(int64(len(groups)))
	each(ctx, members, func(m *member) {
		m.fail(r.prepare(ctx, m))
		if m.same || m.failed() != nil {
			r.leave(ctx, m)
		}
	})
	r.sendLayers(ctx, members)
	r.moveTags(ctx, groups)
	return results(ctx, groups)
}

func newRun(o Options) *run {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Format == "" {
		o.Format = OCI
	}
	if o.Compression == "" {
		o.Compression = Gzip
	}
	if o.LearnTags == nil {
		o.LearnTags = o.Tags
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	if o.Debugf == nil {
		o.Debugf = func(string, ...any) {}
	}
	if o.Done == nil {
		o.Done = func(handoff.PushedImage, time.Duration) {}
	}
	slots := o.Workers
	if o.Compression == Gzip {
		slots *= 2 // while one layer's last blocks are compressed, the next is read
	}
	return &run{
		Options: o, known: newKnowledge(), slots: make(chan struct{}, slots), gzip: newGzipBounds(o.Workers),
		spool: semaphore.NewWeighted(maxSpool), repos: map[string]*repository{},
	}
}

// results collects what became of each image.
func results(ctx context.Context, groups []*group) ([]handoff.PushedImage, error) {
	var pushed []handoff.PushedImage
	var errs []error
	for _, g := range groups {
		pushed = append(pushed, g.result)
		if g.err != nil {
			errs = append(errs, &ImageError{g.result.Name, g.err})
		}
	}
	if ctx.Err() != nil {
		return pushed, ctx.Err() // the images' own errors say the same, one by one
	}
	return pushed, errors.Join(errs...)
}

// inFlight bounds how many images are worked on at a time; requests have a bound of their own, in the client.
const inFlight = 64

// each calls do for all items, many at a time, and waits.
func each[T any](ctx context.Context, items []T, do func(T)) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	for _, item := range items {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() == nil {
				do(item)
			}
		})
	}
	wait.Wait()
}
