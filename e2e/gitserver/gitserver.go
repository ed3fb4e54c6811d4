// Package gitserver serves git repositories over http, as a forge does, with git's own http-backend.
package gitserver

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
)

// Start serves the repositories below root, read-only, at URL/<path>. Close the server when done.
func Start(root string) (*httptest.Server, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, err
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + root}}
	return httptest.NewServer(http.Handler(backend)), nil
}
