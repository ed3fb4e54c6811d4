package apply

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// stage says when an object is written: objects of one stage go together, and only when the stages before are done.
type stage int

const (
	foundations stage = iota // namespaces and definitions of kinds: others cannot even be checked without them
	settings                 // what pods are made with: accounts, roles, configuration, storage
	bindings                 // after the roles they name
	hooksBefore              // Jobs that have to complete before anything runs that was changed
	services                 // services, custom resources and whatever has no stage of its own
	workloads
	gates      // webhooks and the like: they must not stand in the way of what they belong to
	hooksAfter // Jobs that run when everything else is ready
	stageCount
)

var stages = map[schema.GroupKind]stage{
	{Kind: "Namespace"}: foundations,
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: foundations,

	{Kind: "ServiceAccount"}:                                  settings,
	{Kind: "ConfigMap"}:                                       settings,
	{Kind: "Secret"}:                                          settings,
	{Kind: "PersistentVolume"}:                                settings,
	{Kind: "PersistentVolumeClaim"}:                           settings,
	{Kind: "LimitRange"}:                                      settings,
	{Kind: "ResourceQuota"}:                                   settings,
	{Group: "rbac.authorization.k8s.io", Kind: "Role"}:        settings,
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}: settings,
	{Group: "storage.k8s.io", Kind: "StorageClass"}:           settings,
	{Group: "storage.k8s.io", Kind: "CSIDriver"}:              settings,
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:       settings,
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:              settings,
	{Group: "networking.k8s.io", Kind: "IngressClass"}:        settings,
	{Group: "networking.k8s.io", Kind: "NetworkPolicy"}:       settings, // a pod must not start before what fences it in

	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:        bindings,
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}: bindings,

	{Kind: "Pod"}:                        workloads,
	{Kind: "ReplicationController"}:      workloads,
	{Group: "apps", Kind: "Deployment"}:  workloads,
	{Group: "apps", Kind: "ReplicaSet"}:  workloads,
	{Group: "apps", Kind: "StatefulSet"}: workloads,
	{Group: "apps", Kind: "DaemonSet"}:   workloads,
	{Group: "batch", Kind: "Job"}:        workloads,
	{Group: "batch", Kind: "CronJob"}:    workloads,

	{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"}:   gates,
	{Group: "admissionregistration.k8s.io", Kind: "MutatingWebhookConfiguration"}:     gates,
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}:        gates,
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"}: gates,
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicy"}:          gates,
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicyBinding"}:   gates,
	{Group: "apiregistration.k8s.io", Kind: "APIService"}:                             gates,
}

// Order is the place of a kind in what is applied: the higher, the later. Deletion goes the other way round, but for custom
// resources, which come first: their controllers may have to clear up after them.
func Order(kind schema.GroupKind) int {
	if builtIn := !strings.Contains(kind.Group, ".") || strings.HasSuffix(kind.Group, ".k8s.io"); !builtIn {
		return int(stageCount)
	}
	return int(stageOf(kind))
}

func stageOf(kind schema.GroupKind) stage {
	if s, ok := stages[kind]; ok {
		return s
	}
	return services
}
