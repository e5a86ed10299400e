package room_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/room"
)

func TestExplainNamesPathNeedAndFree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone", "file")
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
		err := room.Explain(&os.PathError{Op: "write", Path: path, Err: errno}, path, 12345)
		if !errors.Is(err, errs.Exhausted) || !errors.Is(err, errno) {
			t.Errorf("%v: kind %q", err, errs.Of(err))
		}
		for _, part := range []string{path, "12345 bytes", "are free"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: does not say %q", err, part)
			}
		}
		if again := room.Explain(fmt.Errorf("pull: %w", err), "/", 1); strings.Count(again.Error(), "are free") != 1 {
			t.Errorf("explained twice: %v", again)
		}
	}
	if err := room.Explain(unix.EIO, path, 1); err != unix.EIO { //nolint:errorlint // it must be the same
		t.Error(err)
	}
}
