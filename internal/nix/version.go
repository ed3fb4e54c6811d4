package nix

import (
	"fmt"
	"regexp"
	"strconv"
)

// Version is that of the installed Nix. Everything that differs between versions is a method of it.
type Version struct {
	Flavor string // Nix, Lix or Determinate Nix
	Major  int
	Minor  int
	Patch  int
}

var (
	numbers = regexp.MustCompile(`(\d+)\.(\d+)(?:\.(\d+))?`)
	flavors = regexp.MustCompile(`\((Lix|Determinate Nix)`)
)

// ParseVersion reads what `nix --version` prints. Known banners are `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.93.0` and
// `nix (Determinate Nix 3.8.5) 2.30.2`; the last number is the version of Nix whose commands it has.
func ParseVersion(banner string) (Version, error) {
	all := numbers.FindAllStringSubmatch(banner, -1)
	if len(all) == 0 {
		return Version{}, fmt.Errorf("nix says it is version %q: there is no number in it", banner)
	}
	last := all[len(all)-1]
	v := Version{Flavor: "Nix"}
	if m := flavors.FindStringSubmatch(banner); m != nil {
		v.Flavor = m[1]
	}
	v.Major, _ = strconv.Atoi(last[1]) // digits, as matched; an absurd number is a new one
	v.Minor, _ = strconv.Atoi(last[2])
	v.Patch, _ = strconv.Atoi(last[3])
	return v, nil
}

// String is the number alone, with the flavor before it when it is not Nix itself.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Flavor != "Nix" && v.Flavor != "" {
		s = v.Flavor + " " + s
	}
	return s
}

func (v Version) atLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// showConfig was renamed in 2.20. Lix keeps the old name for both its early and its late versions.
func (v Version) showConfig() []string {
	if v.atLeast(2, 20) && v.Flavor != "Lix" {
		return []string{"config", "show"}
	}
	return []string{"show-config"}
}

// allOutputs is the installable for every output of a derivation. Before 2.13 a store path took no ^; since 2.15 the
// bare .drv stands for the file itself.
func (v Version) allOutputs(drv string) string {
	if v.atLeast(2, 15) {
		return drv + "^*"
	}
	return drv
}

// pathInfoFormat keeps `nix path-info --json` from changing its answer. Since 2.33 there are several forms, of which one is to be named.
func (v Version) pathInfoFormat() []string {
	if v.atLeast(2, 33) && v.Flavor != "Lix" {
		return []string{"--json-format", "1"}
	}
	return nil
}
