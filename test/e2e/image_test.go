package e2e

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/berth-run/berth/test/images"
)

var imageNumber atomic.Int64

// variant gives the node a changed busybox and returns its name.
func variant(t *testing.T, change func(*images.Image)) string {
	t.Helper()
	i, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	change(&i)
	name := fmt.Sprintf("e2e.local/variant:%d", imageNumber.Add(1))
	if err := load(name, i); err != nil {
		t.Fatal(err)
	}
	return name
}
