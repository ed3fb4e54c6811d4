package substituter

import (
	"errors"
	"strconv"
	"strings"
)

// cacheInfo is what nix-cache-info says.
type cacheInfo struct {
	storeDir  string // empty: not said
	priority  int    // lower is asked first; 0 when not said, as for Nix
	massQuery string // 1: it wants to be asked for many paths at a time; 0: it does not; empty: not said
}

// parseCacheInfo reads nix-cache-info as leniently as Nix: unknown keys, lines without colon and numbers that are none are passed
// over. A text without any of the known keys is something else, such as the start page that a web server gives for every name.
func parseCacheInfo(text string) (cacheInfo, error) {
	var info cacheInfo
	known := false
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "StoreDir":
			info.storeDir = value
		case "WantMassQuery":
			info.massQuery = value
		case "Priority":
			if n, err := strconv.Atoi(value); err == nil {
				info.priority = n
			}
		default:
			continue
		}
		known = true
	}
	if !known && strings.TrimSpace(text) != "" {
		return info, errors.New("it has none of StoreDir, WantMassQuery, Priority, so this is no binary cache")
	}
	return info, nil
}

// connections is how many requests a cache gets at the same time.
func (i cacheInfo) connections() int {
	switch i.massQuery {
	case "0":
		return politeConnections
	case "1":
		return eagerConnections
	}
	return connections
}
