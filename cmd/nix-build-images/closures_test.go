package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/derivation"
)

// An image's layers and base images are found by their derivations, and what was copied into them; nothing else is read.
func TestArchives(t *testing.T) {
	at := func(name string) string { return "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-" + name }
	drv := func(env, name string, inputs ...string) string {
		list := ""
		for i, in := range inputs {
			if i > 0 {
				list += ","
			}
			list += fmt.Sprintf("(%q,[\"out\"])", at(in))
		}
		return fmt.Sprintf(`Derive([("out",%q,"","")],[%s],[],"x86_64-linux","/bin/sh",[],[%s])`, at(name), list, env)
	}
	app, lib, root := at("app-1.0"), at("lib"), at("root")
	store := map[string]string{
		at("docker-image-api.tar.gz.drv"):   drv("", "i", "docker-layer-api.drv", "docker-image-base.tar.gz.drv", "pigz-2.8.drv"),
		at("docker-layer-api.drv"):          drv(fmt.Sprintf("(\"copyToRoot\",\"%s  %s\")", app, lib), "l", "app-1.0.drv"),
		at("docker-image-base.tar.gz.drv"):  drv(fmt.Sprintf(`("__json","{\"contents\":[\"%s\",\"%s/etc\"],\"copyToRoot\":7}")`, root, root), "b"),
		at("stream-web.drv"):                drv("", "s", "web-conf.json.drv"),
		at("web-conf.json.drv"):             drv("", "c", "docker-image-base.tar.gz.drv"),
		at("docker-layer-of-the-moon.drv"):  drv(`("contents","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9")`, "m"),
		at("docker-image-lost.tar.zst.drv"): drv("", "x", "docker-layer-lost.drv"),
	}
	graph := derivation.NewGraph(func(path string) ([]byte, error) {
		if text, ok := store[path]; ok {
			return []byte(text), nil
		}
		if name := derivation.Name(path); name == "pigz-2.8" || name == "app-1.0" {
			return []byte(drv("", name, "bootstrap.drv")), nil // whose inputs are not asked for
		}
		return nil, os.ErrNotExist
	})
	for image, want := range map[string][2][]string{
		"docker-image-api.tar.gz.drv":  {{at("docker-image-api.tar.gz.drv"), at("docker-image-base.tar.gz.drv"), at("docker-layer-api.drv")}, {app, lib, root}},
		"stream-web.drv":               {{at("docker-image-base.tar.gz.drv")}, {root}},
		"docker-layer-of-the-moon.drv": {{at("docker-layer-of-the-moon.drv")}, nil},
	} {
		drvs, merged, err := archives(graph, at(image))
		if err != nil {
			t.Errorf("%s: %v", image, err)
		}
		if diff := cmp.Diff(want, [2][]string{drvs, merged}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", image, diff)
		}
	}
	if drvs, _, err := archives(graph, at("docker-image-lost.tar.zst.drv")); err == nil || len(drvs) != 1 {
		t.Errorf("with a derivation that is not there: %v, %v", drvs, err)
	}
}
