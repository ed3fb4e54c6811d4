package main

import (
	"context"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func registryServer() int {
	handlers.NewApp(context.Background(), &configuration.Configuration{})
	return 0
}
