package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// maxArgs is how many store paths fit on a command line: each has at most 300 bytes, and Linux takes two megabytes.
const maxArgs = 5000

// Closure returns what Nix knows of paths, which have to be there, and of all they refer to. What is a cache's affair is empty.
//
// Errors: *CommandError, ctx.Err().
func (n *Nix) Closure(ctx context.Context, paths []string) ([]*narinfo.NarInfo, error) {
	all := make([]storepath.Path, len(paths))
	for i, text := range paths {
		var err error
		if all[i], err = storepath.Dir(n.Settings.StoreDir).Parse(text); err != nil {
			return nil, err
		}
	}
	return n.PathInfo(ctx, "", all, true)
}

// PathInfo asks a store, named as Nix names it or empty for that of the installed Nix, for some of its paths, and says which of them it has. With closure all of them have to be there,
// and what they refer to is part of the answer. It starts Nix once, or more often for many thousands of paths.
//
// Errors: *CommandError, ctx.Err().
func (n *Nix) PathInfo(ctx context.Context, store string, paths []storepath.Path, closure bool) ([]*narinfo.NarInfo, error) {
	dir := storepath.Dir(n.Settings.StoreDir)
	found := map[storepath.Path]*narinfo.NarInfo{}
	for some := range slices.Chunk(paths, maxArgs) {
		args := append([]string{"path-info", "--json"}, n.Version.pathInfoFormat()...)
		if store != "" {
			args = append(args, "--store", store)
		}
		if closure {
			args = append(args, "--recursive")
		}
		for _, p := range some {
			args = append(args, dir.Join(p))
		}
		text, err := n.run(ctx, command{args: args, env: n.unasked(), stderr: io.Discard})
		if err != nil {
			return nil, err
		}
		infos, err := parsePathInfo(text, dir)
		if err != nil {
			return nil, fmt.Errorf("read nix's answer about %s: %w", store, err)
		}
		for _, info := range infos {
			found[info.StorePath] = info
		}
	}
	return slices.Collect(maps.Values(found)), nil
}

// pathInfo is one path in the answer of `nix path-info --json`.
type pathInfo struct {
	Path       string   `json:"path"`  // before 2.19, and Lix
	Valid      *bool    `json:"valid"` // likewise, and only when it is false
	NarHash    jsonHash `json:"narHash"`
	NarSize    int64    `json:"narSize"`
	References []string `json:"references"` // full paths, or names below the store's folder
	Deriver    string   `json:"deriver"`    // likewise
	Signatures []jsonSignature
	CA         any `json:"ca"` // text, or an object in newer forms
}

// parsePathInfo reads every form of the answer: a list (before 2.19, and Lix), an object by path (since then, null for a path that
// is not there), and the same below "info" (since 2.33, by --json-format).
func parsePathInfo(text []byte, dir storepath.Dir) ([]*narinfo.NarInfo, error) {
	byPath := map[string]*pathInfo{}
	var list []*pathInfo
	if json.Unmarshal(text, &list) == nil {
		for _, one := range list {
			byPath[one.Path] = one
		}
	} else {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(text, &object); err != nil {
			return nil, err
		}
		if inner, ok := object["info"]; ok {
			object = nil
			if err := json.Unmarshal(inner, &object); err != nil {
				return nil, err
			}
		}
		for p, raw := range object {
			one := new(*pathInfo)
			if err := json.Unmarshal(raw, one); err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
			byPath[p] = *one
		}
	}
	var infos []*narinfo.NarInfo
	for p, one := range byPath {
		if one == nil || one.Valid != nil && !*one.Valid {
			continue
		}
		info, err := one.narInfo(p, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (i *pathInfo) narInfo(p string, dir storepath.Dir) (*narinfo.NarInfo, error) {
	info := &narinfo.NarInfo{NarSize: i.NarSize}
	var err error
	if info.StorePath, err = storepath.Parse(path.Base(p)); err != nil {
		return nil, err
	}
	if info.NarHash, err = narinfo.ParseHash(string(i.NarHash)); err != nil {
		return nil, err
	}
	for _, text := range i.References {
		ref, err := storepath.Parse(path.Base(text))
		if err != nil {
			return nil, err
		}
		info.References = append(info.References, ref)
	}
	info.SortReferences()
	if i.Deriver != "" {
		if info.Deriver, err = storepath.Parse(path.Base(i.Deriver)); err != nil {
			return nil, err
		}
	}
	for _, sig := range i.Signatures {
		info.Sigs = append(info.Sigs, string(sig))
	}
	info.CA, _ = i.CA.(string) // without, it needs a signature
	return info, nil
}

// jsonHash is a hash as text, or as an object of algorithm, format and hash.
type jsonHash string

func (h *jsonHash) UnmarshalJSON(text []byte) error {
	var object struct{ Algorithm, Hash string }
	if json.Unmarshal(text, (*string)(h)) == nil {
		return nil
	}
	err := json.Unmarshal(text, &object)
	*h = jsonHash(object.Algorithm + ":" + object.Hash)
	return err
}

// jsonSignature is name:base64, or an object of the two.
type jsonSignature string

func (s *jsonSignature) UnmarshalJSON(text []byte) error {
	var object struct{ KeyName, Sig string }
	if json.Unmarshal(text, (*string)(s)) == nil {
		return nil
	}
	err := json.Unmarshal(text, &object)
	*s = jsonSignature(object.KeyName + ":" + object.Sig)
	return err
}
