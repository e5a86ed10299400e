package e2e

import (
	"testing"
)

// command runs the berth command, which has to succeed, and returns its output.
func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := berth.Berth(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
