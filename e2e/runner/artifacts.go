package runner

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
)

// artifactDir is where the runner's artifact server keeps its files; empty: there is none.
func (j *Job) artifactDir() string {
	if !j.Artifacts {
		return ""
	}
	return filepath.Join(j.Dir, "artifacts")
}

// artifactAction calls package artifact where the action that users name would run JavaScript from the network.
const artifactAction = `name: %[1]s-artifact
description: stands in for actions/%[1]s-artifact
inputs:
  name: {description: of the artifact, default: ''}
  path: {description: file or folder, default: ''}
runs:
  using: composite
  steps:
    - shell: bash
      env: {INPUT_NAME: '${{ inputs.name }}', INPUT_PATH: '${{ inputs.path }}'}
      run: '"%[2]s" artifact %[1]s'
`

// artifactActions finds a port for the artifact server and adds the two actions that speak to it to j.Actions.
func (j *Job) artifactActions() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	j.artifactPort = fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
	if err := listener.Close(); err != nil {
		return err
	}
	actions := map[string]string{}
	maps.Copy(actions, j.Actions)
	for _, direction := range []string{"upload", "download"} {
		folder := filepath.Join(j.Dir, "artifact-actions", direction)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "action.yml"), fmt.Appendf(nil, artifactAction, direction, j.Services), 0o644); err != nil {
			return err
		}
		for _, version := range []string{"v3", "v4"} {
			actions["actions/"+direction+"-artifact@"+version] = folder
		}
	}
	j.Actions = actions
	return os.MkdirAll(j.artifactDir(), 0o755)
}
