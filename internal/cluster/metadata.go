package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// ListMetadata lists the metadata of a kind's objects with labels that the selector picks; an empty namespace is all of them.
// A kind that the server does not serve has none.
func (c *Cluster) ListMetadata(ctx context.Context, r schema.GroupVersionResource, namespace, selector string) (all []metav1.PartialObjectMetadata, err error) {
	path := []string{"/apis", r.Group, r.Version}
	if r.Group == "" {
		path = []string{"/api", r.Version}
	}
	if namespace != "" {
		path = append(path, "namespaces", namespace)
	}
	const limit = "500"
	for next := ""; ; {
		var page metav1.PartialObjectMetadataList
		err := Retry(ctx, func() error {
			request := c.raw.Get().AbsPath(append(path, r.Resource)...).Param("labelSelector", selector).Param("limit", limit).
				SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
			if next != "" {
				request = request.Param("continue", next)
			}
			answer := request.Do(ctx)
			if err := answer.Error(); err != nil {
				return err
			}
			body, err := answer.Raw()
			if err != nil {
				return err
			}
			page = metav1.PartialObjectMetadataList{}
			return json.Unmarshal(body, &page)
		})
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil
		case apierrors.IsResourceExpired(err) && next != "": // the pages took too long
			all, next = nil, ""
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, page.Items...)
		if next = page.Continue; next == "" {
			return all, nil
		}
	}
}

// Any returns the newest version of a kind that the server serves.
//
// Errors: *UnknownKindError; others when a server without aggregated discovery had to be asked and failed.
func (k *Kinds) Any(ctx context.Context, gk schema.GroupKind) (Kind, error) {
	if !k.aggregated {
		if err := k.refreshGroup(ctx, gk.Group); err != nil {
			return Kind{}, err
		}
	}
	found, stale := k.served(gk)
	for _, gv := range stale {
		if len(found) > 0 {
			break
		}
		if away, err := k.freshen(ctx, gv); err != nil {
			return Kind{}, err
		} else if away {
			return Kind{}, &UnknownKindError{GroupVersionKind: gk.WithVersion(""), Away: true}
		}
		found, _ = k.served(gk)
	}
	if len(found) == 0 {
		return Kind{}, &UnknownKindError{GroupVersionKind: gk.WithVersion("")}
	}
	return slices.MaxFunc(found, func(a, b Kind) int { return version.CompareKubeAwareVersionStrings(a.Version, b.Version) }), nil
}

// served are all versions of a kind, and those of its group that could not be asked.
func (k *Kinds) served(gk schema.GroupKind) (found []Kind, stale []schema.GroupVersion) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for gv, kinds := range k.versions {
		if kind, ok := kinds[gk.Kind]; ok && gv.Group == gk.Group {
			found = append(found, kind)
		}
		if gv.Group == gk.Group && k.stale[gv] != 0 {
			stale = append(stale, gv)
		}
	}
	return found, stale
}

// refreshGroup asks for the preferred version of a group; a group that is not served (any more) has none.
func (k *Kinds) refreshGroup(ctx context.Context, group string) error {
	if group == "" {
		return k.Refresh(ctx, schema.GroupVersion{Version: "v1"})
	}
	var found metav1.APIGroup
	body, err := k.cluster.get(ctx, "/apis/"+group, "application/json")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return fmt.Errorf("%w: %w", ErrNotAPIServer, err)
	}
	return k.Refresh(ctx, schema.GroupVersion{Group: group, Version: found.PreferredVersion.Version})
}

// Passing says whether the same request may well succeed a moment later.
func Passing(err error) bool { return transient(err) }

// Logs returns the last lines that a container wrote; previous asks for the run before the one that is on.
func (c *Cluster) Logs(ctx context.Context, namespace, pod, container string, previous bool, lines int) (string, error) {
	request := c.raw.Get().AbsPath("/api/v1/namespaces", namespace, "pods", pod, "log").
		Param("container", container).Param("tailLines", fmt.Sprint(lines)).Param("limitBytes", fmt.Sprint(64<<10))
	if previous {
		request = request.Param("previous", "true")
	}
	body, err := request.Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(string(body), "?"), nil
}
