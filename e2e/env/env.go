// Package env starts and stops what flakeship is tested against: a Kubernetes
// control plane with simulated nodes, a container registry and a binary cache,
// all real, all on free loopback ports, all state below one folder.
//
//	e, err := env.Start(ctx, env.Options{Dir: t.TempDir()})
//	defer e.Stop()
//	// e.Cluster.Kubeconfig, e.Registry.Host, e.Cache.URL
//
// Cluster and Registry can be started alone with StartCluster and
// StartRegistry; the binary cache is internal/testenv/binarycache. Nothing
// outlives the process that started it, however that ends.
package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

// Options say what to start and where.
type Options struct {
	// Dir gets all state: dir/cluster, dir/registry, dir/cache, dir/logs. A
	// folder used before is gone on with: registry and cache keep their
	// contents, the cluster starts empty.
	Dir string
	// Services is the path of the services program; empty builds it.
	Services string
	// Nodes is the number of simulated nodes; zero means 2.
	Nodes int
	// Audit makes the API server log each request to dir/cluster/audit.log.
	Audit bool
	// RegistryUser and RegistryPassword, when set, are what the registry asks for.
	RegistryUser, RegistryPassword string
	// Progress gets a line per started service; nil gets none.
	Progress io.Writer
}

// Env is a running environment.
type Env struct {
	Dir      string
	Cluster  *Cluster
	Registry *Registry
	Cache    *binarycache.Server
}

// Start starts everything at the same time and returns once all of it is of
// use: nodes are ready, the default service account exists, registry and cache
// answer. On failure it stops what had started; the error names the service
// and holds the end of its log.
func Start(ctx context.Context, o Options) (*Env, error) {
	if err := o.prepare(ctx); err != nil {
		return nil, err
	}
	e := &Env{Dir: o.Dir}
	var wg sync.WaitGroup
	var clusterErr, registryErr, cacheErr error
	begin := time.Now()
	report := func(format string, args ...any) {
		if o.Progress != nil {
			fmt.Fprintf(o.Progress, "%4.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
		}
	}
	e.Cache, cacheErr = binarycache.Start(filepath.Join(o.Dir, "cache"))
	if cacheErr == nil {
		report("binary cache   %s", e.Cache.URL)
	}
	wg.Go(func() {
		e.Registry, registryErr = StartRegistry(ctx, o)
		if registryErr == nil {
			report("registry       http://%s", e.Registry.Host)
		}
	})
	wg.Go(func() {
		e.Cluster, clusterErr = StartCluster(ctx, o)
		if clusterErr == nil {
			report("cluster        %s, %s", e.Cluster.Version, e.Cluster.URL)
		}
	})
	wg.Wait()
	if err := errors.Join(cacheErr, registryErr, clusterErr); err != nil {
		e.Stop()
		return nil, err
	}
	return e, nil
}

// Stop stops everything and returns once no process is left. State stays.
func (e *Env) Stop() {
	var wg sync.WaitGroup
	if e.Cluster != nil {
		wg.Go(e.Cluster.Stop)
	}
	if e.Registry != nil {
		wg.Go(e.Registry.Stop)
	}
	if e.Cache != nil {
		e.Cache.Close()
	}
	wg.Wait()
}

// prepare fills in what is left open. Paths become absolute, since the services
// run in folders of their own.
func (o *Options) prepare(ctx context.Context) error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	if o.Services == "" {
		o.Services, err = build.Services(ctx, o.Progress)
	}
	return err
}

func (o Options) logs() string { return filepath.Join(o.Dir, "logs") }
