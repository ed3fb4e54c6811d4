// Package streamconf reads the conf.json of nixpkgs' streamLayeredImage: all that an image is made of is named in it. So a layer can be
// recognised by its key without a look at the store, by whoever writes the image and by whoever only asks what a registry has of it.
//
// The package is pure.
package streamconf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// KeyAnnotation names the annotation of a layer's descriptor, in a registry's manifest, that holds its key. The manifest's
// config has the digest of its tar. Layers of the same key have the same bytes, whatever the image.
//
// Who may write to the registry may annotate any layer so, and a runtime cannot notice: the digest it checks is the one that
// was learned. What is to be signed must not rest on it.
const KeyAnnotation = "dev.flakeship.layer-key"

// MaxSize is how long a conf.json may be, in bytes.
const MaxSize = 8 << 20

// Conf is a conf.json.
type Conf struct {
	Architecture       string          `json:"architecture"`
	Config             json.RawMessage `json:"config"`
	Created            string          `json:"created"`
	Mtime              *string         `json:"mtime"`
	UID                json.RawMessage `json:"uid"`
	GID                json.RawMessage `json:"gid"`
	Uname              *string         `json:"uname"`
	Gname              *string         `json:"gname"`
	StoreDir           string          `json:"store_dir"`
	FromImage          *string         `json:"from_image"`
	StoreLayers        [][]string      `json:"store_layers"`
	CustomisationLayer string          `json:"customisation_layer"`
	RepoTag            string          `json:"repo_tag"`

	Owner Owner  `json:"-"`
	ISO   string `json:"-"` // Created as the script writes it
}

// Owner is what every file of a layer gets. Older nixpkgs leave it out of conf.json. Keys are made of it: fields neither change nor
// move.
type Owner struct {
	Mtime        int64
	UID, GID     int64
	Uname, Gname string
}

// maxStoreLayers is far beyond what a runtime mounts.
const maxStoreLayers = 4096

// Is says whether a JSON text is a conf.json rather than something else.
func Is(text []byte) bool {
	var c struct {
		CustomisationLayer *string `json:"customisation_layer"`
	}
	return json.Unmarshal(text, &c) == nil && c.CustomisationLayer != nil
}

// Parse reads a conf.json; now is what "now" in it means. All paths of its layers are store paths of StoreDir.
func Parse(text []byte, now time.Time) (c Conf, err error) {
	if err = json.Unmarshal(text, &c); err != nil {
		return c, err
	}
	if len(c.StoreLayers) > maxStoreLayers {
		return c, fmt.Errorf("it lists %d layers", len(c.StoreLayers))
	}
	for _, layer := range c.StoreLayers {
		for _, p := range layer {
			if path.Clean(p) != p || path.Dir(p) != c.StoreDir {
				return c, fmt.Errorf("%.200q is no store path of %s", p, c.StoreDir)
			}
		}
	}
	if c.CustomisationLayer == "" {
		return c, fmt.Errorf("it has no customisation_layer")
	}
	at, iso, err := parsePythonTime(c.Created, now)
	if err != nil {
		return c, fmt.Errorf("created: %w", err)
	}
	if c.Mtime != nil {
		if at, _, err = parsePythonTime(*c.Mtime, now); err != nil {
			return c, fmt.Errorf("mtime: %w", err)
		}
	}
	c.ISO, c.Owner = iso, Owner{Mtime: at.Unix(), Uname: "root", Gname: "root"}
	if c.Uname != nil {
		c.Owner.Uname = *c.Uname
	}
	if c.Gname != nil {
		c.Owner.Gname = *c.Gname
	}
	if c.Owner.UID, err = parsePythonInt(c.UID); err != nil {
		return c, fmt.Errorf("uid: %w", err)
	}
	if c.Owner.GID, err = parsePythonInt(c.GID); err != nil {
		return c, fmt.Errorf("gid: %w", err)
	}
	return c, nil
}

// Keys are those of all layers but a base image's: the layers of store paths, and the one on top.
func (c *Conf) Keys() []string {
	var keys []string
	for _, paths := range c.StoreLayers {
		keys = append(keys, c.Key(paths))
	}
	return append(keys, c.TopKey())
}

// writer is the version of what writes layers of store paths: it changes with the bytes of any layer.
const writer = "stream 1"

// Key identifies the bytes of a layer of store paths, which never change under their name: by the version of the writer, what
// each file is given, and the paths in order.
func (c *Conf) Key(paths []string) string { return key(writer, c.Owner, paths) }

// TopKey identifies the customisation layer: it is a file in the store, which Nix has made.
func (c *Conf) TopKey() string { return key("stream top 1", c.CustomisationLayer) }

func key(parts ...any) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // numbers and strings
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// parsePythonInt reads a number or a text that holds one; nothing is 0.
func parsePythonInt(raw json.RawMessage) (int64, error) {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 32)
}

// parsePythonTime reads what Python's datetime.fromisoformat reads, as far as Nix writes it, and writes what isoformat
// writes.
func parsePythonTime(text string, now time.Time) (time.Time, string, error) {
	if text == "now" {
		return now, now.UTC().Format("2006-01-02T15:04:05.000000") + "+00:00", nil
	}
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04Z07:00",
		"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02",
	} {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		iso := t.Format("2006-01-02T15:04:05")
		if micros := t.Nanosecond() / 1000; micros > 0 {
			iso += fmt.Sprintf(".%06d", micros)
		}
		if strings.Contains(layout, "Z07:00") {
			iso += t.Format("-07:00")
		}
		return t, iso, nil
	}
	return time.Time{}, "", fmt.Errorf("%.40q is no date", text)
}
