package harness

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

func TestWhatIsInMemoryIsOnNoDisk(t *testing.T) {
	testutil.Root(t)
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "blob"), []byte("bytes"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := Settings{Dir: t.TempDir()}
	disk, err := DiskOf(s.Dir)
	if err != nil {
		t.Skip(err) // the run's directory lies on no disk
	}
	dir, drop, err := s.InMemory(from)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "blob"))
	if err != nil || string(data) != "bytes" {
		t.Error(string(data), err)
	}
	if _, err := DiskOf(dir); err == nil {
		t.Error("it lies on a block device")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Errorf("file system %#x, %v", st.Type, err)
	}
	if _, _, err := disk.Traffic(); err != nil {
		t.Error(err)
	}
	if err := drop(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) > 0 {
		t.Errorf("%v stay, %v", left, err)
	}
}
