// Package matrix tests each RPC of CRI in the same six ways: that it succeeds,
// that wrong input is refused and leaves nothing, that the same call again does
// what CRI says, that eight of them at once are as one, that one whose caller
// goes away can be repeated, and that berthd may be killed after it or under it.
//
// A row says what is particular to an RPC; the list of RPCs comes from CRI's own
// description, so that none can be missing. Beside the rows, fields_test.go sends
// wrong values in every field of every request. It needs root and what make build
// makes: make e2e runs it.
package matrix

import (
	"fmt"
	"testing"

	testnode "github.com/berth-run/berth/test/node"
)

// berth is the node that all share.
var berth *testnode.Node

const busybox = "matrix.local/busybox:1"

func TestMain(m *testing.M) {
	testnode.Suite{Name: "mat", Busybox: busybox, Options: func(dir string) testnode.Options {
		return testnode.Options{Bridge: "berthmat0", Config: fmt.Sprintf(`
[runtime]
cdi_spec_dirs = [%q]
[runtime.handlers.berth]
`, dir+"/cdi")}
	}}.Main(m, &berth)
}
