package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is one kind of object the server knows.
type Kind struct {
	schema.GroupVersionKind
	Resource   string // plural name, as in URLs
	Namespaced bool
}

// GVR is what the dynamic client wants to know.
func (k Kind) GVR() schema.GroupVersionResource {
	return k.GroupVersion().WithResource(k.Resource)
}

// Kinds is what a server knows. It may be used from several goroutines.
type Kinds struct {
	cluster *Cluster

	mu         sync.Mutex
	versions   map[schema.GroupVersion]map[string]Kind // by kind
	aggregated bool                                    // versions is all there is
	stale      map[schema.GroupVersion]freshness       // what did not answer the server when it gathered all this
}

// freshness is what is known of an API version that the server could not ask.
type freshness int

const (
	unasked freshness = iota + 1
	silent            // asked once more, in vain
)

// UnknownKindError is a kind the server does not know.
type UnknownKindError struct {
	schema.GroupVersionKind
	Known []string // API versions in which the server knows a kind of that name
	Away  bool     // what serves the group does not answer, so the kind may well exist
}

func (e *UnknownKindError) Error() string {
	if e.Away {
		return fmt.Sprintf("what serves the API group %s does not answer, so the server knows no kind %s in it", e.Group, e.Kind)
	}
	s := fmt.Sprintf("the server knows no kind %s in %s", e.Kind, e.GroupVersion())
	if len(e.Known) > 0 {
		s += ", only in " + strings.Join(e.Known, " and ")
	}
	return s
}

// acceptAggregated asks for everything in one document; servers before 1.26 answer with a list of groups instead.
const acceptAggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList," +
	"application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"

// discoveryList is the part of an APIGroupDiscoveryList that is of use here. client-go's own discovery client knows all of
// it, but pulls the Go types of every built-in API with it: 16 MB of binary, and twice the time to start.
type discoveryList struct {
	Kind  string
	Items []struct {
		Metadata struct{ Name string }
		Versions []struct {
			Version   string
			Freshness string // Stale: what serves it did not answer
			Resources []struct {
				Resource     string
				ResponseKind *schema.GroupVersionKind
				Scope        string
			}
		}
	}
}

// ErrNotAPIServer is what Discover returns when something else answers: a web page, a proxy.
var ErrNotAPIServer = errors.New("it does not answer as an API server does")

// Discover asks the server what it knows: two requests. They are the first ones, and are not tried again: a server that
// refuses them is more likely the wrong one than one that restarts.
func (c *Cluster) Discover(ctx context.Context) (*Kinds, error) {
	k := &Kinds{cluster: c, versions: map[schema.GroupVersion]map[string]Kind{}, stale: map[schema.GroupVersion]freshness{}}
	var lists [2]discoveryList
	group, ctx := errgroup.WithContext(ctx)
	for i, path := range []string{"/api", "/apis"} {
		group.Go(func() error {
			body, err := c.get(ctx, path, acceptAggregated)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(body, &lists[i]); err != nil {
				return fmt.Errorf("%w: %w", ErrNotAPIServer, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	k.aggregated = lists[0].Kind == "APIGroupDiscoveryList" && lists[1].Kind == "APIGroupDiscoveryList"
	for _, list := range lists {
		for _, g := range list.Items {
			for _, v := range g.Versions {
				gv := schema.GroupVersion{Group: g.Metadata.Name, Version: v.Version}
				kinds := map[string]Kind{}
				if v.Freshness == "Stale" {
					k.stale[gv] = unasked
				}
				for _, r := range v.Resources {
					if r.ResponseKind != nil {
						add(kinds, gv, r.ResponseKind.Kind, r.Resource, r.Scope == "Namespaced")
					}
				}
				k.versions[gv] = kinds
			}
		}
	}
	return k, nil
}

// get asks for a path.
func (c *Cluster) get(ctx context.Context, path, accept string) ([]byte, error) {
	answer := c.raw.Get().AbsPath(path).SetHeader("Accept", accept).Do(ctx)
	if err := answer.Error(); err != nil { // reads the server's words, as Raw does not
		return nil, err
	}
	return answer.Raw()
}

// add keeps the first resource of a kind: others are views of it.
func add(kinds map[string]Kind, gv schema.GroupVersion, kind, resource string, namespaced bool) {
	if _, ok := kinds[kind]; !ok && kind != "" {
		kinds[kind] = Kind{gv.WithKind(kind), resource, namespaced}
	}
}

// Find returns what the server knows of a kind.
//
// Errors: *UnknownKindError; others when a server without aggregated discovery had to be asked and failed.
func (k *Kinds) Find(ctx context.Context, gvk schema.GroupVersionKind) (Kind, error) {
	kind, ok := k.get(gvk)
	if !ok && !k.aggregated {
		if err := k.Refresh(ctx, gvk.GroupVersion()); err != nil {
			return Kind{}, err
		}
		kind, ok = k.get(gvk)
	}
	away := false
	if !ok && k.aggregated {
		var err error
		if away, err = k.freshen(ctx, gvk.GroupVersion()); err != nil {
			return Kind{}, err
		}
		kind, ok = k.get(gvk)
	}
	if !ok {
		return Kind{}, &UnknownKindError{gvk, k.known(gvk.Kind), away}
	}
	return kind, nil
}

// freshen asks for an API version that could not be asked before: of one that is about to go, or has only just come, that is a matter
// of moments. It reports whether what serves it still does not answer. The error is ctx.Err().
func (k *Kinds) freshen(ctx context.Context, gv schema.GroupVersion) (away bool, err error) {
	k.mu.Lock()
	state := k.stale[gv]
	k.mu.Unlock()
	if state == unasked {
		if k.Refresh(ctx, gv) == nil {
			state = 0
		} else {
			state = silent
		}
		k.mu.Lock()
		k.stale[gv] = state
		k.mu.Unlock()
	}
	return state == silent, ctx.Err()
}

func (k *Kinds) get(gvk schema.GroupVersionKind) (Kind, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kind, ok := k.versions[gvk.GroupVersion()][gvk.Kind]
	return kind, ok
}

func (k *Kinds) known(kind string) (versions []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for gv, kinds := range k.versions {
		if _, ok := kinds[kind]; ok {
			versions = append(versions, gv.String())
		}
	}
	slices.Sort(versions)
	return versions
}

// Refresh asks the server again for one API version; a version it does not serve (yet) has no kinds.
func (k *Kinds) Refresh(ctx context.Context, gv schema.GroupVersion) error {
	path := "/apis/" + gv.Group + "/" + gv.Version
	if gv.Group == "" {
		path = "/api/" + gv.Version
	}
	var list struct {
		Resources []struct {
			Name, Kind string
			Namespaced bool
		}
	}
	var body []byte
	err := Retry(ctx, func() (err error) {
		body, err = k.cluster.get(ctx, path, "application/json")
		return err
	})
	if err == nil {
		err = json.Unmarshal(body, &list)
	} else if apierrors.IsNotFound(err) {
		err = nil
	}
	if err != nil {
		return err
	}
	kinds := map[string]Kind{}
	for _, r := range list.Resources {
		if !strings.Contains(r.Name, "/") {
			add(kinds, gv, r.Kind, r.Name, r.Namespaced)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.versions[gv] = kinds
	return nil
}

// IsUnknownKind says whether err means that the server does not know a kind, and that there are no objects of it.
func IsUnknownKind(err error) bool {
	var unknown *UnknownKindError
	return errors.As(err, &unknown) && !unknown.Away
}
