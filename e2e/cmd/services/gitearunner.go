package main

import (
	"gitea.com/gitea/runner/act/runner"
)

func giteaRunner() int {
	runner.New(&runner.Config{})
	return 0
}
