package main

import (
	"testing"

	"github.com/flakeship/flakeship/internal/action/actionyml"
)

func TestActionYAML(t *testing.T) { actionyml.Check(t, spec) }
