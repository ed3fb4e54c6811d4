package handoff

import (
	"fmt"
	"strings"
)

// Family is how a Nix library writes its images to disk.
type Family string

const (
	DockerArchive Family = "docker-archive" // dockerTools.buildImage, buildLayeredImage: a tar, plain or compressed
	Stream        Family = "stream"         // dockerTools.streamLayeredImage: a script that prints such a tar
	Nix2Container Family = "nix2container"  // nix2container.buildImage: JSON that lists layers by store path
	OCILayout     Family = "oci-layout"     // a folder or tar in the form of the OCI image layout, as copyTo of either library writes it
)

// State is a Plan's verdict on one image.
type State string

const (
	StatePushed    State = "pushed"    // the registry has the image's tag: nothing to build, nothing to push
	StateCached    State = "cached"    // a cache serves the output and its closure, signed by a trusted key: push, no build
	StateMissing   State = "missing"   // every cache was asked and none has it: build and push
	StatePartial   State = "partial"   // the output is there, a reference of it is not: build
	StateUntrusted State = "untrusted" // there, but no trusted key signed it: build
	StateUnknown   State = "unknown"   // content-addressed, the output path is not known before the build: build
	StateError     State = "error"     // a cache, the registry or the evaluation failed: an error is never an answer
)

// NeedsBuild says whether nix-build-images builds an image of this state; an error counts only under on-cache-error=build.
func (s State) NeedsBuild() bool {
	switch s {
	case StateMissing, StatePartial, StateUntrusted, StateUnknown:
		return true
	}
	return false
}

// Plan is what is to be done for each image of one commit, and why. Written by nix-cache-check.
type Plan struct {
	Header
	Flake             Flake          `json:"flake"`                       // the source
	NixVersion        string         `json:"nixVersion"`                  // of the Nix that evaluated it
	Substituters      []string       `json:"substituters"`                // caches asked, in order
	TrustedPublicKeys []string       `json:"trustedPublicKeys,omitempty"` // keys the verdicts rest on, as name:base64
	Registry          string         `json:"registry,omitempty"`          // prefix the tags were looked up under; empty: the registry was not asked
	Shards            int            `json:"shards,omitempty"`            // parts the work is cut into, when more than one
	Images            []PlannedImage `json:"images"`                      // sorted by name, then system
	Changes           *Changes       `json:"changes,omitempty"`           // since the commit of the input base; left out: none was given
}

func (*Plan) kind() Kind { return KindPlan }

// Changes says which images are others than at an earlier commit, and why.
type Changes struct {
	Base    string         `json:"base"`    // the earlier commit, 40 hex digits
	Added   []ImageName    `json:"added"`   // images it has not, sorted by name
	Removed []ImageName    `json:"removed"` // images that only it has, sorted by name
	Changed []ChangedImage `json:"changed"` // images with another derivation, sorted by name
}

// ImageName is what images are told apart by.
type ImageName struct {
	Name   string `json:"name"`   // imageName
	System string `json:"system"` // Nix's, e.g. x86_64-linux
}

// ChangedImage is an image whose derivation is another than it was.
type ChangedImage struct {
	ImageName
	Causes []Cause `json:"causes"` // the nearest first; not more than a dozen
}

// CauseKind is what differs.
type CauseKind string

const (
	CauseSource      CauseKind = "source"      // a file of the repository
	CauseVersion     CauseKind = "version"     // a dependency has another version
	CauseDependency  CauseKind = "dependency"  // a dependency was added or removed
	CauseEnvironment CauseKind = "environment" // a variable of a build
)

// Cause is one input of an image that differs, and does not only because something it is made from does.
type Cause struct {
	Kind CauseKind `json:"kind"`           // what differs
	What string    `json:"what"`           // the file, package or variable
	From string    `json:"from,omitempty"` // what it was; of a long value the part that differs; empty: not there, or not to be told in a line
	To   string    `json:"to,omitempty"`   // what it is
	Via  []string  `json:"via,omitempty"`  // names of the derivations between the image and the one that has it, the image's own left out
}

// String says what differs, in a line.
func (c Cause) String() string {
	switch c.Kind {
	case CauseSource:
		return strings.TrimSpace(c.What + " " + c.From + c.To)
	case CauseDependency:
		if c.From == "" {
			return "new dependency " + c.To
		}
		return "no dependency on " + c.From
	case CauseVersion:
		return fmt.Sprintf("%s %s → %s", c.What, orNone(c.From), orNone(c.To))
	}
	return fmt.Sprintf("%s: %s → %s", c.What, orNone(c.From), orNone(c.To))
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// Flake is the source that was evaluated.
type Flake struct {
	Ref    string `json:"ref"`              // as the user gave it
	Locked string `json:"locked,omitempty"` // the same source, pinned; empty for a dirty tree
	Dirty  bool   `json:"dirty,omitempty"`  // built from uncommitted files

	NarHash string       `json:"narHash,omitempty"` // of the source, as sha256-…; empty when Nix does not say
	Inputs  []FlakeInput `json:"inputs,omitempty"`  // what flake.lock pins, sorted by name
}

// FlakeInput is one source that a flake.lock pins.
type FlakeInput struct {
	Name    string `json:"name"`              // of the node in flake.lock
	URI     string `json:"uri"`               // where it comes from, pinned
	Rev     string `json:"rev,omitempty"`     // its revision, 40 hex digits; empty: it is no git tree
	NarHash string `json:"narHash,omitempty"` // of its content, as sha256-…
}

// PlannedImage is one image derivation and the verdict on it.
type PlannedImage struct {
	Name     string `json:"name"`               // imageName: the repository below the registry prefix; unique per system
	Tag      string `json:"tag"`                // the Nix hash: identifies the content
	ImageTag string `json:"imageTag,omitempty"` // the tag written in the flake, when it is not the Nix hash
	Attr     string `json:"attr"`               // e.g. packages.x86_64-linux.api
	System   string `json:"system"`             // Nix's, e.g. x86_64-linux
	Family   Family `json:"family"`             // how it is stored
	DrvPath  string `json:"drvPath"`            // its derivation
	OutPath  string `json:"outPath,omitempty"`  // empty when not known before the build

	State    State         `json:"state"`              // the verdict
	Reason   string        `json:"reason"`             // one sentence: what was seen that makes this the state
	Build    bool          `json:"build"`              // nix-build-images builds it
	Push     bool          `json:"push"`               // push-images sends it
	Cache    string        `json:"cache,omitempty"`    // the cache that serves it
	Digest   string        `json:"digest,omitempty"`   // of the manifest the registry has at the tag
	Caches   []CacheAnswer `json:"caches,omitempty"`   // what each cache said, in the order they were asked
	NarSize  int64         `json:"narSize,omitempty"`  // bytes of the output's NAR, when a cache knows it
	Download int64         `json:"download,omitempty"` // bytes of the closure's compressed NARs, when cached
	Fetch    Fetch         `json:"fetch,omitempty"`    // how much of a cached image nix-build-images is to fetch; empty: its closure
	File     string        `json:"file,omitempty"`     // store path of that file, when it is not outPath: the conf.json of a stream image

	LayerTags []string `json:"layerTags,omitempty"` // tags of its repository under which all of its layers were seen, when its file alone is fetched
	Shard     int      `json:"shard,omitempty"`     // the part it is in, from 1; left out: 1
}

// Fetch is how much of a cached image is needed to push it.
type Fetch string

const FetchFile Fetch = "file" // one file that says what the image is made of, and nothing else: the registry has its layers

// CacheAnswer is what one cache said about one image.
type CacheAnswer struct {
	Cache  string `json:"cache"`            // its URL, without credentials
	State  State  `json:"state"`            // cached, missing, partial, untrusted or error
	Detail string `json:"detail,omitempty"` // what it said, when that is not the state alone
}

// BuildState is what became of one image in nix-build-images.
type BuildState string

const (
	BuildBuilt       BuildState = "built"       // Nix built it, or had built it on this machine before
	BuildSubstituted BuildState = "substituted" // fetched from a cache
	BuildSkipped     BuildState = "skipped"     // the registry has it already: nothing was built or fetched
	BuildFailed      BuildState = "failed"
)

// BuildResult is what nix-build-images made: where each image is on this machine.
type BuildResult struct {
	Header
	Flake  *Flake       `json:"flake,omitempty"`  // as in the plan
	Store  Store        `json:"store"`            // where its paths are
	CopyTo string       `json:"copyTo,omitempty"` // cache the closures were copied to, without credentials
	Shard  int          `json:"shard,omitempty"`  // the part of the plan this is, from 1; left out: all of it
	Shards int          `json:"shards,omitempty"` // parts the plan has, when more than one
	Images []BuiltImage `json:"images"`           // those of the part, sorted by name, then system

	// Closures is the path of a file that lists the store paths images are made of, for push-images to attest them; empty: they
	// were not asked for. See StorePath.
	Closures string `json:"closures,omitempty"`
}

func (*BuildResult) kind() Kind { return KindBuildResult }

// Part is one part of a plan that was cut into several.
type Part struct {
	Plan   string `json:"plan"`   // digest of the plan
	Shard  int    `json:"shard"`  // from 1
	Shards int    `json:"shards"` // how many there are
}

// Parts are the parts of plans that build results are of; none when no plan was cut.
func Parts(results []*BuildResult) (parts []Part) {
	for _, r := range results {
		if r.Shards > 1 {
			parts = append(parts, Part{strings.Join(r.Previous, " "), r.Shard, r.Shards})
		}
	}
	return parts
}

// Store says where store paths are found on disk.
type Store struct {
	Dir  string `json:"dir"`            // logical: /nix/store
	Root string `json:"root,omitempty"` // prefix of the physical path, for a chroot store; empty: none
}

// BuiltImage is one image after the build.
type BuiltImage struct {
	Name     string `json:"name"`               // as in the plan
	Tag      string `json:"tag"`                // as in the plan
	ImageTag string `json:"imageTag,omitempty"` // as in the plan
	Attr     string `json:"attr"`               // as in the plan
	System   string `json:"system"`             // as in the plan
	Family   Family `json:"family"`             // as in the plan
	DrvPath  string `json:"drvPath,omitempty"`  // as in the plan
	OutPath  string `json:"outPath,omitempty"`  // where the image is, below store.root
	File     string `json:"file,omitempty"`     // the file that says what it is made of, when nothing else of it was fetched: outPath is not in the store then

	LayerTags []string `json:"layerTags,omitempty"` // as in the plan, when its file alone was fetched

	Merged []string `json:"merged,omitempty"` // store paths whose files were copied into an archive's root; there when closures are

	State   BuildState `json:"state"`             // what became of it
	Digest  string     `json:"digest,omitempty"`  // of the manifest the registry has at the tag, when skipped
	Copied  bool       `json:"copied,omitempty"`  // the closure is in copyTo and was seen there, signed
	Seconds float64    `json:"seconds,omitempty"` // its own build took, when it was built
	Failure *Failure   `json:"failure,omitempty"` // when the state is failed
}

// Failure says why an image could not be built.
type Failure struct {
	Derivation string      `json:"derivation"`     // the one that failed: the image's own or one it depends on
	Kind       FailureKind `json:"kind,omitempty"` // what it was; left out when it is none of these
	Reason     string      `json:"reason"`         // one sentence; of a hash mismatch with the wanted and the got hash
	Log        []string    `json:"log,omitempty"`  // last lines
}

// FailureKind is what kept an image from being built.
type FailureKind string

const (
	FailureExit    FailureKind = "exit"    // the builder ended with an exit code or a signal, or made no output
	FailureHash    FailureKind = "hash"    // a download is another than the flake says
	FailureDisk    FailureKind = "disk"    // no space left
	FailureTimeout FailureKind = "timeout" // ended by Nix for its time or its silence
	FailureSystem  FailureKind = "system"  // no machine at hand may build it
	FailureNetwork FailureKind = "network" // a cache or a remote builder failed, several times
	FailureStopped FailureKind = "stopped" // the whole build ended before
	FailureImage   FailureKind = "image"   // built, but no image: it cannot be opened, or its layers are not those it names
)

// PushState is what became of one image in push-images.
type PushState string

const (
	PushUploaded  PushState = "uploaded"  // the manifest was written
	PushUnchanged PushState = "unchanged" // the registry had this image at this tag
	PushFailed    PushState = "failed"
	PushSkipped   PushState = "skipped" // it is not in the registry, and was not sent: see skipped of the result
)

// PushResult is what the registry has now. Written by push-images.
type PushResult struct {
	Header
	Registry string        `json:"registry"`          // prefix, e.g. registry.example.org/team
	Complete bool          `json:"complete"`          // every image of the build results is in the registry
	Parts    []Part        `json:"parts,omitempty"`   // of which plans, when those were cut; deploy-manifests wants all of a plan
	DryRun   bool          `json:"dryRun,omitempty"`  // it is what the registry would have: nothing was written
	Skipped  string        `json:"skipped,omitempty"` // why nothing was sent, in a pull request from a fork; images that the registry has are named all the same
	Images   []PushedImage `json:"images"`            // sorted by name
}

func (*PushResult) kind() Kind { return KindPushResult }

// PushedImage is one repository after the push.
type PushedImage struct {
	Name       string    `json:"name"`                // as in the plan
	Repository string    `json:"repository"`          // registry prefix and name, e.g. registry.example.org/team/api
	Tag        string    `json:"tag"`                 // the Nix hash
	Tags       []string  `json:"tags"`                // every tag that points at the digest now, the Nix hash first
	Digest     string    `json:"digest,omitempty"`    // of the manifest, or of the index when there are several systems
	MediaType  string    `json:"mediaType,omitempty"` // of what the digest names
	Systems    []string  `json:"systems"`             // it was built for
	State      PushState `json:"state"`               // what became of it
	Layers     Layers    `json:"layers"`              // how its layers got there
	Uploaded   int64     `json:"uploadedBytes"`       // bytes of blobs and manifests sent for this image
	Seconds    float64   `json:"seconds,omitempty"`   // from its first request to its last
	Error      string    `json:"error,omitempty"`     // when the state is failed
}

// Reference is repository:tag@digest, what a manifest is to name.
func (p PushedImage) Reference() string { return p.Repository + ":" + p.Tag + "@" + p.Digest }

// Layers counts how an image's layers got to the registry.
type Layers struct {
	Reused   int `json:"reused"`   // were in the repository
	Mounted  int `json:"mounted"`  // taken over from another repository, nothing sent
	Uploaded int `json:"uploaded"` // sent
}

// Action is what deploy-manifests did to one object.
type Action string

const (
	ActionCreated    Action = "created"
	ActionConfigured Action = "configured"
	ActionRecreated  Action = "recreated" // deleted and created, because it cannot be changed
	ActionUnchanged  Action = "unchanged"
	ActionFailed     Action = "failed"
	ActionSkipped    Action = "skipped" // not reached, because an earlier object failed
	ActionPruned     Action = "pruned"  // deleted: it had left the manifests
	ActionKept       Action = "kept"    // it has left the manifests and is still there, see its message
)

// Rollout is how far an object got after it was applied.
type Rollout string

const (
	RolloutReady   Rollout = "ready"
	RolloutFailed  Rollout = "failed"
	RolloutTimeout Rollout = "timeout"
	RolloutNone    Rollout = "none" // nothing to wait for, or not waited for
)

// DeployResult is what the cluster has now. Written by deploy-manifests.
type DeployResult struct {
	Header
	Server  string           `json:"server"`            // API server's URL
	Changed bool             `json:"changed"`           // at least one object was created, configured or recreated
	DryRun  bool             `json:"dryRun,omitempty"`  // nothing was written: the actions are what would have been done
	Skipped string           `json:"skipped,omitempty"` // why no cluster was asked, in a pull request from a fork
	Objects []DeployedObject `json:"objects"`           // in the order they were applied
	Images  []PinnedImage    `json:"images"`            // references that were pinned, sorted

	Set       string    `json:"set,omitempty"`       // name of the set the objects belong to
	Namespace string    `json:"namespace,omitempty"` // where the set's own objects are
	History   int       `json:"history,omitempty"`   // version of the set that this deploy is kept as; 0: it did not succeed
	URLs      []string  `json:"urls,omitempty"`      // of the set's Ingresses and Gateways, sorted
	Rollback  *Rollback `json:"rollback,omitempty"`  // when the deploy failed and was undone
}

func (*DeployResult) kind() Kind { return KindDeployResult }

// Rollback is how a failed deploy was undone.
type Rollback struct {
	Done    bool     `json:"done"`              // what ran before runs again
	History int      `json:"history,omitempty"` // version of the set it went back to; 0: there was none
	Commit  string   `json:"commit,omitempty"`  // of that version
	Objects []string `json:"objects,omitempty"` // that were written or deleted, as kind/namespace/name
	Seconds float64  `json:"seconds"`           // it took
	Message string   `json:"message,omitempty"` // why it is not done
}

// DeployedObject is one Kubernetes object after the deploy.
type DeployedObject struct {
	APIVersion string  `json:"apiVersion"`          // as Kubernetes has it
	Kind       string  `json:"kind"`                // as Kubernetes has it
	Namespace  string  `json:"namespace,omitempty"` // empty for a cluster-scoped object
	Name       string  `json:"name"`                // as Kubernetes has it
	Source     string  `json:"source,omitempty"`    // file:line; empty for an object that has left the manifests
	Action     Action  `json:"action"`              // what was done
	Rollout    Rollout `json:"rollout"`             // how far it got
	Seconds    float64 `json:"seconds,omitempty"`   // from apply to ready or failed
	Message    string  `json:"message,omitempty"`   // why it failed, or what it waits for

	Images []string `json:"images,omitempty"` // of the push result that were pinned in it, by name, sorted
}

// ID is kind/namespace/name, or kind/name for an object without a namespace.
func (o DeployedObject) ID() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Kind + "/" + o.Namespace + "/" + o.Name
}

// PinnedImage is one image reference that was replaced in the objects.
type PinnedImage struct {
	From  string `json:"from"`  // as the manifest has it
	To    string `json:"to"`    // repository:tag@digest
	Count int    `json:"count"` // fields
}
