package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/flakeship/flakeship/e2e/env/traffic"
	"github.com/flakeship/flakeship/e2e/process"
)

// Registry is a running container registry (distribution v3, on disk).
type Registry struct {
	Host string // host:port; the registry speaks plain HTTP
	Dir  string // its blobs and manifests

	process   *process.Process
	accessLog string

	mu   sync.Mutex
	read int64 // bytes of the access log that Traffic has given
}

// StartRegistry starts a registry in o.Dir/registry and waits until it answers.
func StartRegistry(ctx context.Context, o Options) (*Registry, error) {
	if err := o.prepare(ctx); err != nil {
		return nil, err
	}
	base := filepath.Join(o.Dir, "registry")
	r := &Registry{Dir: filepath.Join(base, "data"), accessLog: filepath.Join(base, "access.log")}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return nil, err
	}
	addressFile := filepath.Join(base, "address")
	if err := os.Remove(addressFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if info, err := os.Stat(r.accessLog); err == nil {
		r.read = info.Size() // of an earlier use of the folder
	}
	args := []string{"registry", "--dir", r.Dir, "--access-log", r.accessLog, "--address-file", addressFile}
	if o.RegistryUser != "" {
		// The cheapest cost: the registry checks it on every request.
		hash, err := bcrypt.GenerateFromPassword([]byte(o.RegistryPassword), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		users := filepath.Join(base, "htpasswd")
		if err := os.WriteFile(users, fmt.Appendf(nil, "%s:%s\n", o.RegistryUser, hash), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--htpasswd", users)
	}
	var err error
	r.process, err = process.Start(process.Options{Name: "registry", Path: o.Services, Args: args, LogDir: o.logs()})
	if err != nil {
		return nil, err
	}
	err = await(ctx, 20*time.Second, []*process.Process{r.process}, "the registry answers", func(ctx context.Context) error {
		address, err := os.ReadFile(addressFile)
		if err != nil {
			return err
		}
		r.Host = string(address)
		return get(ctx, http.DefaultClient, "http://"+r.Host+"/v2/", http.StatusOK, http.StatusUnauthorized)
	})
	if err != nil {
		r.Stop()
		return nil, err
	}
	_, err = r.Traffic() // our own questions are not the test's
	return r, err
}

// Traffic returns the requests that arrived since the last call of Traffic.
func (r *Registry) Traffic() ([]traffic.Request, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests, read, err := traffic.Read(r.accessLog, r.read)
	r.read = read
	return requests, err
}

// Stop stops the registry; its contents stay. Stopping again does nothing.
func (r *Registry) Stop() { r.process.Stop(2 * time.Second) }

// get asks for a URL and wants one of the given status codes.
func get(ctx context.Context, client *http.Client, url string, want ...int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for _, status := range want {
		if response.StatusCode == status {
			return nil
		}
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10)) // what arrived of it will do
	return fmt.Errorf("GET %s: %s: %s", url, response.Status, bytes.TrimSpace(body))
}
