package handoff

import (
	"encoding/json"
	"fmt"
	"os"
)

// StorePath is what Nix knows of one store path. A list of them is in a file of its own beside the BuildResult: a closure can have
// thousands.
type StorePath struct {
	Path       string   `json:"path"`                 // logical
	NarHash    string   `json:"narHash,omitempty"`    // sha256 of its NAR serialisation, 64 hex digits
	References []string `json:"references,omitempty"` // store paths it refers to, itself maybe among them
}

// WriteClosures writes the file that BuildResult.Closures names.
func WriteClosures(file string, paths []StorePath) error {
	text, err := json.Marshal(paths)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// ReadClosures reads the file that BuildResult.Closures names.
func ReadClosures(file string) ([]StorePath, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxDocument {
		return nil, fmt.Errorf("%s has more than %d MiB", file, maxDocument>>20)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var paths []StorePath
	if err := json.Unmarshal(text, &paths); err != nil {
		return nil, fmt.Errorf("%s is no list of store paths: %w", file, err)
	}
	return paths, nil
}
