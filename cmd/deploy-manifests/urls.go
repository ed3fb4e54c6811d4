package main

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/apply"
)

// urls are where what was deployed can be reached: the hosts and paths of Ingresses, and those of Gateways and the HTTPRoutes that
// belong to them. Hosts with a wildcard are no URL.
func urls(changes []apply.Change) []string {
	var all []string
	gateways := map[string][]listener{} // by namespace/name
	for _, c := range changes {
		if o := c.Live; o != nil && o.GroupVersionKind().Group == "gateway.networking.k8s.io" && o.GetKind() == "Gateway" {
			found := listeners(o)
			gateways[o.GetNamespace()+"/"+o.GetName()] = found
			for _, l := range found {
				all = append(all, l.url(l.host))
			}
		}
	}
	for _, c := range changes {
		if c.Live == nil {
			continue
		}
		switch gk := c.Live.GroupVersionKind().GroupKind(); gk.String() {
		case "Ingress.networking.k8s.io":
			all = append(all, ofIngress(c.Live)...)
		case "HTTPRoute.gateway.networking.k8s.io":
			all = append(all, ofRoute(c.Live, gateways)...)
		}
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(url string) bool { return url == "" || strings.Contains(url, "*") })
	return all
}

func ofIngress(o *unstructured.Unstructured) (all []string) {
	secure := map[string]bool{}
	for _, entry := range entriesOf(o.Object, "spec", "tls") {
		hosts, _, _ := unstructured.NestedStringSlice(entry, "hosts")
		for _, host := range hosts {
			secure[host] = true
		}
	}
	for _, rule := range entriesOf(o.Object, "spec", "rules") {
		host, _ := rule["host"].(string)
		hosts := []string{host}
		if host == "" {
			hosts = addresses(o)
		}
		paths := []string{}
		for _, entry := range entriesOf(rule, "http", "paths") {
			if path, _ := entry["path"].(string); path != "" && entry["pathType"] != "ImplementationSpecific" {
				paths = append(paths, path)
			}
		}
		if len(paths) == 0 || slices.Contains(paths, "/") {
			paths = []string{"/"} // what is below needs no mention
		}
		for _, host := range hosts {
			scheme := "http"
			if secure[host] || secure["*"+host[max(0, strings.Index(host, ".")):]] {
				scheme = "https"
			}
			for _, path := range paths {
				all = append(all, scheme+"://"+host+path)
			}
		}
	}
	return all
}

// addresses are those a load balancer has got, if it has one by now.
func addresses(o *unstructured.Unstructured) (all []string) {
	for _, entry := range entriesOf(o.Object, "status", "loadBalancer", "ingress") {
		for _, field := range []string{"hostname", "ip"} {
			if text, _ := entry[field].(string); text != "" {
				all = append(all, text)
				break
			}
		}
	}
	return all
}

// listener is one of a Gateway's.
type listener struct {
	name, host, scheme string
	port               int64
}

func listeners(o *unstructured.Unstructured) (all []listener) {
	for _, entry := range entriesOf(o.Object, "spec", "listeners") {
		l := listener{scheme: map[any]string{"HTTP": "http", "HTTPS": "https"}[entry["protocol"]]}
		l.name, _ = entry["name"].(string)
		l.host, _ = entry["hostname"].(string)
		l.port, _ = entry["port"].(int64)
		if l.scheme != "" {
			all = append(all, l)
		}
	}
	return all
}

// url is that of a host at the listener; empty for none.
func (l listener) url(host string) string {
	if host == "" {
		return ""
	}
	if l.scheme == "http" && l.port == 80 || l.scheme == "https" && l.port == 443 || l.port == 0 {
		return l.scheme + "://" + host + "/"
	}
	return fmt.Sprintf("%s://%s:%d/", l.scheme, host, l.port)
}

// ofRoute are the route's hosts at the listeners of its gateways, as far as those were deployed too.
func ofRoute(o *unstructured.Unstructured, gateways map[string][]listener) (all []string) {
	hosts, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "hostnames")
	for _, parent := range entriesOf(o.Object, "spec", "parentRefs") {
		namespace, _ := parent["namespace"].(string)
		if namespace == "" {
			namespace = o.GetNamespace()
		}
		for _, l := range gateways[fmt.Sprintf("%s/%v", namespace, parent["name"])] {
			if section := parent["sectionName"]; section != nil && section != l.name {
				continue
			}
			for _, host := range hosts {
				suffix, wild := strings.CutPrefix(l.host, "*")
				if l.host == "" || l.host == host || wild && strings.HasSuffix(host, suffix) {
					all = append(all, l.url(host))
				}
			}
		}
	}
	return all
}

// entriesOf is a list of maps somewhere in an object.
func entriesOf(o map[string]any, path ...string) (all []map[string]any) {
	list, _, _ := unstructured.NestedFieldNoCopy(o, path...)
	entries, _ := list.([]any)
	for _, entry := range entries {
		if m, ok := entry.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}
