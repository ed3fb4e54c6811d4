package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// An image is one row: what all steps say of one image for one system.
type image struct {
	name, system string
	planned      *handoff.PlannedImage
	built        *handoff.BuiltImage
	pushed       *handoff.PushedImage
	objects      []*handoff.DeployedObject // that run it
}

// images joins the documents by name and system, sorted by both; an image of several systems has one row each.
func (p *Pipeline) images() []*image {
	type key struct{ name, system string }
	rows := map[key]*image{}
	row := func(name, system string) *image {
		k := key{name, system}
		if rows[k] == nil {
			rows[k] = &image{name: name, system: system}
		}
		return rows[k]
	}
	if p.Plan != nil {
		for i := range p.Plan.Images {
			row(p.Plan.Images[i].Name, p.Plan.Images[i].System).planned = &p.Plan.Images[i]
		}
	}
	for _, result := range p.Builds {
		for i := range result.Images {
			row(result.Images[i].Name, result.Images[i].System).built = &result.Images[i]
		}
	}
	if p.Push != nil {
		for i := range p.Push.Images {
			pushed := &p.Push.Images[i]
			for _, system := range pushed.Systems {
				row(pushed.Name, system).pushed = pushed
			}
			if len(pushed.Systems) == 0 { // pushed from a file, for a system nobody named
				row(pushed.Name, "").pushed = pushed
			}
		}
	}
	if p.Deploy != nil {
		for i := range p.Deploy.Objects {
			for _, name := range p.Deploy.Objects[i].Images {
				for k, r := range rows {
					if k.name == name {
						r.objects = append(r.objects, &p.Deploy.Objects[i])
					}
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(rows), func(a, b *image) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.system, b.system))
	})
}

// failure is why the image is not what it should be; empty when nothing failed.
func (i *image) failure() string {
	switch {
	case i.pushed != nil && i.pushed.State == handoff.PushFailed:
		return i.pushed.Error
	case i.built != nil && i.built.Failure != nil:
		return i.built.Failure.Reason
	case i.planned != nil && i.planned.State == handoff.StateError && i.built == nil:
		return i.planned.Reason
	}
	return ""
}

const unchanged = "unchanged"

// work says in a few words what was done for the image, the last step first.
func (i *image) work() string {
	switch {
	case i.failure() != "":
		return "failed"
	case i.pushed != nil && i.pushed.State == handoff.PushUploaded && i.built != nil && i.built.State == handoff.BuildBuilt:
		return "built, pushed"
	case i.pushed != nil:
		return map[handoff.PushState]string{handoff.PushUploaded: "pushed", handoff.PushUnchanged: unchanged}[i.pushed.State]
	case i.built != nil && i.built.State == handoff.BuildSkipped:
		return unchanged
	case i.built != nil:
		return string(i.built.State)
	case i.planned != nil && i.planned.Build:
		return "to build"
	case i.planned != nil && i.planned.Push:
		return "to push"
	}
	return unchanged
}

func (i *image) verdict() (state, reason string) {
	if i.planned == nil {
		return "", ""
	}
	return string(i.planned.State), i.planned.Reason
}

// layers says how the image's layers got to the registry.
func (i *image) layers() string {
	if i.pushed == nil || i.pushed.State != handoff.PushUploaded {
		return ""
	}
	l := i.pushed.Layers
	return fmt.Sprintf("%d reused, %d mounted, %d sent", l.Reused, l.Mounted, l.Uploaded)
}

// reference is what a manifest names, when the image is in the registry.
func (i *image) reference() string {
	if i.pushed != nil && i.pushed.Digest != "" {
		return i.pushed.Reference()
	}
	return ""
}

// facts are the run in one line, in the order of the steps.
func (p *Pipeline) facts() []string {
	var facts []string
	images := p.images()
	if n := len(images); n > 0 {
		facts = append(facts, count(n, "image"))
	}
	if len(p.Builds) > 0 {
		built := 0
		for _, i := range images {
			if i.built != nil && i.built.State == handoff.BuildBuilt {
				built++
			}
		}
		facts = append(facts, fmt.Sprintf("%d built", built))
	}
	if p.Push != nil {
		uploaded, sent := 0, int64(0)
		for _, i := range p.Push.Images {
			if i.State == handoff.PushUploaded {
				uploaded++
			}
			sent += i.Uploaded
		}
		facts = append(facts, fmt.Sprintf("%d pushed", uploaded), size(sent)+" sent")
	}
	if p.Deploy != nil {
		changed := 0
		for _, o := range p.Deploy.Objects {
			if o.Action != handoff.ActionUnchanged && o.Action != handoff.ActionSkipped && o.Action != handoff.ActionFailed {
				changed++
			}
		}
		facts = append(facts, fmt.Sprintf("%d of %s changed", changed, count(len(p.Deploy.Objects), "object")))
	}
	return facts
}

// failed says whether anything in the run did.
func (p *Pipeline) failed() bool {
	if slices.ContainsFunc(p.images(), func(i *image) bool { return i.failure() != "" }) {
		return true
	}
	return p.Deploy != nil && slices.ContainsFunc(p.Deploy.Objects, objectFailed)
}

func objectFailed(o handoff.DeployedObject) bool {
	return o.Action == handoff.ActionFailed || o.Rollout == handoff.RolloutFailed || o.Rollout == handoff.RolloutTimeout
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	value, u := float64(bytes), 0
	for value >= 1024 && u < len(units)-1 {
		value, u = value/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[u])
}

// link is the address of a page about the image in a registry that has such pages; empty for others.
func (p *Pipeline) link(i *image) string {
	if i.pushed == nil {
		return ""
	}
	host, path, _ := strings.Cut(i.pushed.Repository, "/")
	if host == "ghcr.io" {
		return "https://" + i.pushed.Repository // redirects to the package's page
	}
	owner, name, ok := strings.Cut(path, "/")
	if scheme, server, found := strings.Cut(p.Run.Server, "://"); found && ok && strings.TrimSuffix(server, "/") == host && strings.HasPrefix(scheme, "http") {
		return scheme + "://" + host + "/" + owner + "/-/packages/container/" + strings.ReplaceAll(name, "/", "%2F") + "/" + i.pushed.Tag
	}
	return ""
}

// log is the address of the run's log.
func (p *Pipeline) log() string {
	isHTTP := strings.HasPrefix(p.Run.Server, "https://") || strings.HasPrefix(p.Run.Server, "http://")
	if !isHTTP || p.Run.Repository == "" || p.Run.ID == "" {
		return ""
	}
	return strings.TrimSuffix(p.Run.Server, "/") + "/" + p.Run.Repository + "/actions/runs/" + p.Run.ID
}
