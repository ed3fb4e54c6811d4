package push

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
)

// knowledge is what was read from the registry: which layer is which blob, and where. A manifest that is there vouches for
// its blobs, so nobody asks for them one by one.
type knowledge struct {
	mu     sync.Mutex
	layers map[v1.Hash]map[string]v1.Descriptor // by diffID, then by repository path
	keys   map[string]v1.Hash                   // diffIDs, by layer key
	blobs  map[string]map[string]bool           // configs and other blobs, by digest, then by repository path
	tags   map[string]string                    // digests, by reference; empty: there was no such tag

	configs map[string][]byte    // of images on this machine, by digest: those in the registry need not be read
	lookups map[string]*manifest // by reference
}

// manifest is what a registry has at a tag, asked for once.
type manifest struct {
	once sync.Once
	registry.Manifest
	err error
}

func newKnowledge() *knowledge {
	return &knowledge{
		layers: map[v1.Hash]map[string]v1.Descriptor{}, keys: map[string]v1.Hash{},
		blobs: map[string]map[string]bool{}, tags: map[string]string{},
		configs: map[string][]byte{}, lookups: map[string]*manifest{},
	}
}

func (k *knowledge) add(diffID v1.Hash, repo string, d v1.Descriptor) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.layers[diffID] == nil {
		k.layers[diffID] = map[string]v1.Descriptor{}
	}
	if old, ok := k.layers[diffID][repo]; !ok || better(d, old) {
		k.layers[diffID][repo] = d
	}
}

// better prefers gzip, which everything can unpack, and of the same kind the smaller.
func better(a, b v1.Descriptor) bool {
	if x, y := a.MediaType == types.OCILayer, b.MediaType == types.OCILayer; x != y {
		return x
	}
	return a.Size < b.Size
}

// forget drops a layer that a repository turned out not to have.
func (k *knowledge) forget(diffID v1.Hash, repo string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.layers[diffID], repo)
}

// in returns the blob a repository has for a layer.
func (k *knowledge) in(repo string, diffID v1.Hash) (v1.Descriptor, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, ok := k.layers[diffID][repo]
	return d, ok
}

// elsewhere returns the best blob for a layer in any repository, and which. The choice is the same each time.
func (k *knowledge) elsewhere(diffID v1.Hash) (repo string, d v1.Descriptor, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for path, candidate := range k.layers[diffID] {
		if !ok || better(candidate, d) || !better(d, candidate) && path < repo {
			repo, d, ok = path, candidate, true
		}
	}
	return repo, d, ok
}

func (k *knowledge) empty() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.layers) == 0
}

func (k *knowledge) setKey(key string, diffID v1.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[key] = diffID
}

// name gives layers the diffIDs that images in the registry have for their keys, and says whether any key is known.
func (k *knowledge) name(layers []*image.Layer) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range layers {
		if l.DiffID == (v1.Hash{}) {
			l.DiffID, l.Claim = k.keys[l.Key], true
		}
	}
	return len(k.keys) > 0
}

func (k *knowledge) setBlob(repo, digest string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.blobs[digest] == nil {
		k.blobs[digest] = map[string]bool{}
	}
	k.blobs[digest][repo] = true
}

func (k *knowledge) hasBlob(repo, digest string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blobs[digest][repo]
}

// forgetBlobs drops what is known of a repository's blobs other than layers.
func (k *knowledge) forgetBlobs(repo string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, repos := range k.blobs {
		delete(repos, repo)
	}
}

func (k *knowledge) setConfig(config []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.configs[digestOf(config)] = config
}

func (k *knowledge) config(digest string) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	config, ok := k.configs[digest]
	return config, ok
}

func (k *knowledge) lookup(reference string) *manifest {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lookups[reference] == nil {
		k.lookups[reference] = &manifest{}
	}
	return k.lookups[reference]
}

func (k *knowledge) setTag(reference, digest string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tags[reference] = digest
}

func (k *knowledge) tag(reference string) (digest string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	digest, ok = k.tags[reference]
	return digest, ok
}
