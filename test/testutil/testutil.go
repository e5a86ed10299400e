// Package testutil holds what tests of several packages need: the guards for
// root and kernel features. A guard skips on a developer's machine and fails
// under CI=true, where everything must run.
package testutil

import (
	"os"
	"testing"
)

// Root ends the test unless it runs as root. With BERTH_TEST_UNPRIVILEGED set
// (make check) it skips even then: those tests are make test-root's.
func Root(t testing.TB) {
	t.Helper()
	if os.Getenv("BERTH_TEST_UNPRIVILEGED") != "" {
		t.Skip("needs root: see make test-root")
	}
	Need(t, os.Geteuid() == 0, "root")
}

// Need ends the test unless have is true: a skip that names what is missing, or
// a failure under CI=true.
func Need(t testing.TB, have bool, what string) {
	t.Helper()
	if have {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s, which CI must have", what)
	}
	t.Skipf("needs %s", what)
}
