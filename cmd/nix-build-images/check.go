package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/nix"
)

// checks opens each image that Nix made, while it makes the others: an image that cannot be opened is none, whatever Nix says.
//
// The layers of nix2container are store paths, beside a description that has their digests. Where both were made here they
// agree. Where the description came from a cache the paths may be of another build, which differs when it is not
// reproducible; such layers are read, each once, and their digests compared. That is all that is read of any layer.
type checks struct {
	store handoff.Store
	good  func(out string) // told of each image that is one; from several goroutines
	wg    sync.WaitGroup
	slots chan struct{} // as many as images are checked at a time

	mu     sync.Mutex
	wrong  map[string]error        // by output path
	layers map[string]func() error // by digest
}

func newChecks(store handoff.Store, good func(out string)) *checks {
	return &checks{store: store, good: good, slots: make(chan struct{}, 2), wrong: map[string]error{}, layers: map[string]func() error{}}
}

// begin checks one image, and returns at once.
func (c *checks) begin(t nix.Target, fetched bool) {
	c.wg.Go(func() {
		c.slots <- struct{}{}
		err := c.open(t, fetched)
		<-c.slots
		if err == nil {
			c.good(t.OutPath)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wrong[t.OutPath] = err
	})
}

// settle waits for all checks, and makes those of built failed that are no images.
func (c *checks) settle(built []nix.Built) {
	c.wg.Wait()
	for i := range built {
		b := &built[i]
		if err := c.wrong[b.OutPath]; err != nil && b.State != handoff.BuildFailed {
			b.State = handoff.BuildFailed
			b.Failure = &handoff.Failure{Derivation: b.DrvPath, Kind: handoff.FailureImage, Reason: err.Error()}
		}
	}
}

func (c *checks) open(t nix.Target, fetched bool) error {
	arch, _, _ := strings.Cut(t.System, "-")
	img, err := image.Open(c.store.Root+t.OutPath, image.Options{Store: c.store, Name: t.Name, Tags: []string{t.Tag, t.ImageTag},
		Platform: v1.Platform{OS: "linux", Architecture: architectures[arch]}})
	if t.Family == handoff.Stream && errors.As(err, new(*image.NotImageError)) {
		return nil // a script of somebody's own: only who runs it can tell
	}
	if err != nil {
		return err
	}
	defer img.Close()
	if img.Family != handoff.Nix2Container || !fetched {
		return nil
	}
	for _, l := range img.Layers {
		if err := c.layer(l)(); err != nil {
			return err
		}
	}
	return nil
}

// architectures are OCI's names, for files with an image for each.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "riscv64": "riscv64"}

// layer compares a layer's digest when the returned function is called first; images share layers.
func (c *checks) layer(l *image.Layer) func() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := l.DiffID.String()
	if c.layers[key] == nil {
		c.layers[key] = sync.OnceValue(func() error { return compare(l) })
	}
	return c.layers[key]
}

func compare(l *image.Layer) error {
	var got, want string
	if l.Blob != nil {
		f, err := l.Blob.Open()
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.Name, err)
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(f, 0, 1<<62)); err != nil {
			return fmt.Errorf("layer %s: %w", l.Name, err)
		}
		got, want = "sha256:"+hex.EncodeToString(sum.Sum(nil)), l.Blob.Digest.String()
	} else {
		err := l.WriteTar(io.Discard)
		if errors.Is(err, image.ErrAgain) { // written by another version of nix2container
			err = l.WriteTar(io.Discard)
		}
		var other *image.DigestError
		if !errors.As(err, &other) {
			return err
		}
		got, want = other.Got.String(), other.Want.String()
	}
	if got == want {
		return nil
	}
	return fmt.Errorf("layer %s is not reproducible: its store paths here give %s, and the image, which a cache has of another build, says %s", l.Name, got, want)
}
