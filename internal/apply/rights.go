package apply

import (
	"context"

	"github.com/flakeship/flakeship/internal/cluster"
)

// Dry runs show who may not write. They do not show who may write, but not delete what has to be created again, nor watch what
// is waited for. The server says that for a whole namespace at once.

// permit refuses items for whose sake something will have to be done that is not allowed: one request for each namespace in
// which something is to be written.
func (a *applier) permit(ctx context.Context) error {
	places := map[string][]*item{}
	for _, it := range a.items {
		if len(a.verbs(it)) > 0 && it.problem == nil && it.blocked == "" && it.kind.Namespaced {
			places[it.object.GetNamespace()] = append(places[it.object.GetNamespace()], it)
		}
	}
	for namespace, items := range places {
		known, err := a.cluster.Rules(ctx, namespace)
		if err != nil {
			return err
		}
		for _, it := range items {
			for _, verb := range a.verbs(it) {
				if !known.Allow(verb, it.kind, it.object.GetName()) {
					missing := cluster.Right{Verb: verb, Resource: it.kind.Resource, Group: it.kind.Group, Namespace: namespace}
					a.refuse(it, cluster.Diagnosis{Class: cluster.Denied, Text: missing.String(), Missing: &missing}, "")
					break
				}
			}
		}
	}
	return nil
}

// verbs are what will be asked of the server for an item after its dry run, beyond the write itself.
func (a *applier) verbs(it *item) (verbs []string) {
	switch {
	case it.plan == recreate:
		verbs = []string{"delete", "get"}
	case it.plan != write:
		return nil
	}
	if path := podSpecs[it.kind.GroupKind()]; a.options.Watched && len(path) == 3 { // neither a Pod nor a CronJob
		verbs = append(verbs, "list", "watch")
	}
	return verbs
}
