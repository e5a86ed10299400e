package runtimetest_test

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
)

func TestFakeConforms(t *testing.T) {
	runtimetest.Run(t,
		func(*testing.T) runtime.Runtime { return &runtimetest.Fake{OnStream: runtimetest.Echo} },
		func(*testing.T, string) *specs.Spec {
			return &specs.Spec{Root: &specs.Root{Path: "/"}, Process: &specs.Process{Args: []string{"sleep"}}}
		})
}
