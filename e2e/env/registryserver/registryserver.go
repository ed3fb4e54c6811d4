// Package registryserver is the distribution registry on a folder, as a process
// of its own: package env starts it through the services program.
package registryserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"

	"github.com/flakeship/flakeship/e2e/env/traffic"
)

// Main runs the registry that the command line describes until a signal ends
// it, and returns the exit code. Its access log is what package env reads to
// tell what was really sent.
func Main() int {
	flags := flag.NewFlagSet("registry", flag.ExitOnError)
	var (
		dir         = flags.String("dir", "", "folder of the registry's blobs and manifests")
		accessLog   = flags.String("access-log", "", "file that gets one JSON line per request")
		addressFile = flags.String("address-file", "", "file that gets host:port once the registry listens")
		listen      = flags.String("listen", "127.0.0.1:0", "address to listen on")
		htpasswd    = flags.String("htpasswd", "", "file of users with bcrypt passwords; empty lets everyone in")
	)
	_ = flags.Parse(os.Args[1:]) // exits by itself
	if err := serve(*dir, *accessLog, *addressFile, *listen, *htpasswd); err != nil {
		fmt.Fprintln(os.Stderr, "services registry:", err)
		return 1
	}
	return 0
}

func serve(dir, accessLog, addressFile, listen, htpasswd string) error {
	text := fmt.Sprintf(registryConfig, dir)
	if htpasswd != "" {
		text += fmt.Sprintf(registryAuth, htpasswd)
	}
	config, err := configuration.Parse(strings.NewReader(text))
	if err != nil {
		return err
	}
	logrus.SetLevel(logrus.WarnLevel)

	log, err := os.OpenFile(accessLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: traffic.Record(log, handlers.NewApp(ctx, config))}
	context.AfterFunc(ctx, func() { _ = server.Close() })

	// Renamed into place: who sees the file sees the whole address.
	if err := os.WriteFile(addressFile+".new", []byte(listener.Addr().String()), 0o644); err != nil {
		return err
	}
	if err := os.Rename(addressFile+".new", addressFile); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// The secret signs the state of uploads in flight; one process has no one to share it with.
const registryConfig = `
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0", secret: flakeship-e2e}
`

const registryAuth = `
auth: {htpasswd: {realm: flakeship-e2e, path: %q}}
`
