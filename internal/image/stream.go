package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// streamImage is what nixpkgs' streamLayeredImage script knows.
type streamImage struct {
	conf    streamconf.Conf
	store   handoff.Store
	base    *archive        // of from_image; nil: none
	baseCfg pyObject        // its config
	baseMan archiveManifest // and manifest
	origins [][]string      // of each layer: the store paths, or base image's member, that the history tells of
}

// openStream opens the script that streamLayeredImage makes, without running it: all it knows is in the conf.json it is
// called with.
func openStream(path string, o Options) (*Image, error) {
	script, err := readSmall(path, 1<<20)
	if err != nil {
		return nil, err
	}
	confPath, err := findConf(script, o.Store.Dir)
	if err != nil {
		return nil, &NotImageError{path, err.Error()}
	}
	file, err := physical(o.Store, confPath)
	if err != nil {
		return nil, fmt.Errorf("%s: its conf.json: %w", path, err)
	}
	text, err := readSmall(file, streamconf.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("%s: its conf.json: %w", path, err)
	}
	s, err := newStream(file, text, o)
	if err != nil {
		return nil, err
	}
	return s.image(o, s.customisation)
}

// openStreamConf opens the conf.json of a stream script, where the script is not needed. Nothing is read of the layers: what they are
// made of need not be in the store as long as nobody asks for their bytes.
func openStreamConf(path string, text []byte, o Options) (*Image, error) {
	s, err := newStream(path, text, o)
	if err != nil {
		return nil, err
	}
	if s.conf.FromImage != nil {
		return nil, &NotImageError{path, "it is the conf.json of an image with a base image, which only the script can be opened with"}
	}
	return s.image(o, func() (*Layer, error) {
		return &Layer{Name: s.conf.CustomisationLayer, source: storeTar{s.store, s.conf.CustomisationLayer + "/layer.tar"}}, nil
	})
}

func newStream(path string, text []byte, o Options) (*streamImage, error) {
	conf, err := streamconf.Parse(text, time.Now())
	if err != nil {
		return nil, &NotImageError{path, err.Error()}
	}
	if conf.StoreDir != o.Store.Dir {
		return nil, &NotImageError{path, fmt.Sprintf("its store is %.100q, not %s", conf.StoreDir, o.Store.Dir)}
	}
	return &streamImage{conf: conf, store: o.Store}, nil
}

// findConf finds the one conf.json a stream script names.
func findConf(script []byte, storeDir string) (string, error) {
	pattern := regexp.MustCompile(regexp.QuoteMeta(storeDir) + `/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]*conf\.json`)
	found := pattern.FindAllString(string(script), -1)
	slices.Sort(found)
	found = slices.Compact(found)
	switch len(found) {
	case 0:
		return "", errors.New("it is a script, but not one of streamLayeredImage: it names no conf.json")
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("it is a script that names %d files called conf.json", len(found))
}

// image makes the Image; top makes its last layer.
func (s *streamImage) image(o Options, top func() (*Layer, error)) (*Image, error) {
	img := &Image{
		Family:   handoff.Stream,
		Platform: v1.Platform{OS: "linux", Architecture: s.conf.Architecture}, // the script writes linux whatever conf.json says
		config:   s.config,
	}
	if s.conf.FromImage != nil {
		if err := s.openBase(img, o); err != nil {
			return nil, err
		}
	}
	for _, paths := range s.conf.StoreLayers {
		s.origins = append(s.origins, paths)
		img.Layers = append(img.Layers, &Layer{
			Name:   strings.Join(paths, " "),
			Key:    s.conf.Key(paths),
			source: &storeLayer{paths, s.conf.Owner, s.store},
		})
	}
	last, err := top()
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	last.Key = s.conf.TopKey()
	img.Layers = append(img.Layers, last)
	s.origins = append(s.origins, []string{s.conf.CustomisationLayer})
	return img, nil
}

// openBase adds the layers of from_image.
func (s *streamImage) openBase(img *Image, o Options) error {
	file, err := physical(s.store, *s.conf.FromImage)
	if err != nil {
		return fmt.Errorf("base image: %w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("base image: %w", err)
	}
	if s.base, err = indexArchive(f, file, o); err != nil {
		return fmt.Errorf("base image: %w", err)
	}
	base, err := s.base.image(Options{})
	if err == nil {
		err = s.readBase()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("base image: %w", err), s.base.Close())
	}
	img.closers = base.closers
	img.Layers = base.Layers
	for _, l := range base.Layers {
		s.origins = append(s.origins, []string{l.Name})
	}
	return nil
}

func (s *streamImage) readBase() error {
	text, err := s.base.small("manifest.json", maxManifest)
	if err != nil {
		return err
	}
	if s.baseMan, err = parseArchiveManifest(text, Options{}); err != nil {
		return err
	}
	config, err := s.base.small(s.baseMan.Config, maxConfig)
	if err != nil {
		return err
	}
	v, err := parseOrdered(config)
	if err != nil {
		return err
	}
	all, _ := v.(pyObject)
	s.baseCfg, _ = all.get("config").(pyObject) // without one there is no Env to take over
	return nil
}

// customisation is the top layer, which Nix has built already, digest and all.
func (s *streamImage) customisation() (*Layer, error) {
	folder := s.conf.CustomisationLayer
	sumFile, err := physical(s.store, folder+"/checksum")
	if err != nil {
		return nil, fmt.Errorf("customisation layer: %w", err)
	}
	sum, err := readSmall(sumFile, 1<<10)
	if err != nil {
		return nil, fmt.Errorf("customisation layer: %w", err)
	}
	diffID, err := parseDigest("sha256:" + strings.TrimSpace(string(sum)))
	if err != nil {
		return nil, fmt.Errorf("customisation layer: %s: %w", sumFile, err)
	}
	file, err := physical(s.store, folder+"/layer.tar")
	if err != nil {
		return nil, fmt.Errorf("customisation layer: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("customisation layer: %w", err)
	}
	return &Layer{Name: folder, DiffID: diffID, Size: info.Size(), source: tarFile(file)}, nil
}

// config is the image config as the script prints it.
func (s *streamImage) config(diffIDs []v1.Hash) ([]byte, error) {
	v, err := parseOrdered(s.conf.Config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	config, ok := v.(pyObject)
	if !ok && v != nil {
		return nil, errors.New("config: it is no JSON object")
	}
	if s.base != nil {
		overlayEnv(&config, s.baseCfg)
	}
	var ids, history []any
	for i, paths := range s.origins {
		ids = append(ids, diffIDs[i].String())
		history = append(history, pyObject{{"created", s.conf.ISO}, {"comment", "store paths: " + pyRepr(paths)}})
	}
	return pyDumps(pyObject{
		{"created", s.conf.ISO},
		{"architecture", s.conf.Architecture},
		{"os", "linux"},
		{"config", config},
		{"rootfs", pyObject{{"diff_ids", ids}, {"type", "layers"}}},
		{"history", history},
	}), nil
}

// overlayEnv puts the base image's environment in front; of the same variable the last value wins, at the first's place.
func overlayEnv(config *pyObject, base pyObject) {
	var env pyObject
	for _, list := range []any{base.get("Env"), config.get("Env")} {
		entries, _ := list.([]any)
		for _, e := range entries {
			if text, ok := e.(string); ok {
				name, _, _ := strings.Cut(text, "=")
				env.set(name, text)
			}
		}
	}
	if len(env) == 0 {
		return
	}
	var entries []any
	for _, f := range env {
		entries = append(entries, f.value)
	}
	config.set("Env", entries)
}

// storeTar is a layer that is a tar in the store.
type storeTar struct {
	store handoff.Store
	path  string
}

func (t storeTar) writeTar(w io.Writer) error {
	file, err := physical(t.store, t.path)
	if err != nil {
		return err
	}
	return tarFile(file).writeTar(w)
}

// tarFile is a layer that is a tar on disk.
type tarFile string

func (f tarFile) writeTar(w io.Writer) error {
	r, err := os.Open(string(f))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
