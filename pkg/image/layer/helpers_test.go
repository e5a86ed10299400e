package layer

import (
	"syscall"
	"testing"
)

// TestMain gives the tests no umask to rely on: a daemon's may be anything.
func TestMain(m *testing.M) {
	syscall.Umask(0o077)
	m.Run()
}
