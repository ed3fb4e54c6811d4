// Command flux applies a file with Flux's library for server-side apply, as its kustomize-controller does, and waits until the
// objects are ready when asked to. It is what bench/deploy measures deploy-manifests against.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func main() {
	kubeconfig, file := flag.String("kubeconfig", "", ""), flag.String("file", "", "")
	wait := flag.Bool("wait", false, "")
	flag.Parse()
	crlog.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	if err := run(context.Background(), *kubeconfig, *file, *wait); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, kubeconfig, file string, wait bool) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.UserAgent = -1, "flux-ssa" // Flux does not throttle either where the server has priorities and fairness
	c, poller, err := clients(config)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	objects, err := utils.ReadObjects(f)
	if err != nil {
		return err
	}
	manager := ssa.NewResourceManager(c, poller, ssa.Owner{Field: "flux", Group: "bench.flux"})
	manager.SetConcurrency(4) // the controller's default
	changes, err := manager.ApplyAllStaged(ctx, objects, ssa.DefaultApplyOptions())
	if err != nil || !wait {
		return err
	}
	return manager.WaitForSet(changes.ToObjMetadataSet(), ssa.WaitOptions{Interval: time.Second, Timeout: 10 * time.Minute, FailFast: true})
}

func clients(config *rest.Config) (client.Client, *polling.StatusPoller, error) {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(config, client.Options{HTTPClient: httpClient, Mapper: mapper})
	if err != nil {
		return nil, nil, err
	}
	return c, polling.NewStatusPoller(c, mapper, polling.Options{}), nil
}
