package image

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// streamConf is the conf.json of a streamLayeredImage.
type streamConf struct {
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
}

// owner is what every file of a layer gets. Older nixpkgs leave it out of conf.json.
type owner struct {
	Mtime        int64
	UID, GID     int64
	Uname, Gname string
}

// maxStoreLayers is far beyond what a runtime mounts.
const maxStoreLayers = 4096

func parseStreamConf(text []byte, now time.Time) (c streamConf, own owner, created string, err error) {
	if err = json.Unmarshal(text, &c); err != nil {
		return c, own, "", err
	}
	if len(c.StoreLayers) > maxStoreLayers {
		return c, own, "", fmt.Errorf("it lists %d layers", len(c.StoreLayers))
	}
	for _, layer := range c.StoreLayers {
		for _, p := range layer {
			if path.Clean(p) != p || path.Dir(p) != c.StoreDir {
				return c, own, "", fmt.Errorf("%.200q is no store path of %s", p, c.StoreDir)
			}
		}
	}
	if c.CustomisationLayer == "" {
		return c, own, "", fmt.Errorf("it has no customisation_layer")
	}
	at, created, err := parsePythonTime(c.Created, now)
	if err != nil {
		return c, own, "", fmt.Errorf("created: %w", err)
	}
	if c.Mtime != nil {
		if at, _, err = parsePythonTime(*c.Mtime, now); err != nil {
			return c, own, "", fmt.Errorf("mtime: %w", err)
		}
	}
	own = owner{Mtime: at.Unix(), Uname: "root", Gname: "root"}
	if c.Uname != nil {
		own.Uname = *c.Uname
	}
	if c.Gname != nil {
		own.Gname = *c.Gname
	}
	if own.UID, err = parsePythonInt(c.UID); err != nil {
		return c, own, "", fmt.Errorf("uid: %w", err)
	}
	if own.GID, err = parsePythonInt(c.GID); err != nil {
		return c, own, "", fmt.Errorf("gid: %w", err)
	}
	return c, own, created, nil
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
