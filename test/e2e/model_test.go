package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// modelSize is how many bytes the weights of a model have: 8 MB, or what
// BERTH_TEST_ARTIFACT_MB says.
func modelSize(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("BERTH_TEST_ARTIFACT_MB")
	if text == "" {
		text = "8"
	}
	mb, err := strconv.ParseInt(text, 10, 32)
	if err != nil || mb < 1 {
		t.Fatalf("BERTH_TEST_ARTIFACT_MB=%s: %v", text, err)
	}
	return mb * 1e6
}

// putModel puts an artifact of a file of many bytes and of an archive.
func putModel(t *testing.T, s *registry.Server, size int64) (ref string, b *images.Built) {
	t.Helper()
	archive, err := images.Layer{Files: []images.File{{Name: "conf/model.json", Data: []byte("{}")}}}.Stream()
	if err != nil {
		t.Fatal(err)
	}
	number := imageNumber.Add(1)
	b, err = images.Artifact{
		Type: "application/vnd.cncf.model.manifest.v1+json",
		Blobs: []images.Blob{
			{Title: "weights/1.bin", MediaType: "application/vnd.cncf.model.weight.v1.raw", Noise: images.Noise{Seed: uint64(number), Size: size}},
			{MediaType: "application/vnd.cncf.model.weight.config.v1.tar", Data: archive},
		},
	}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s.Put("team/model", fmt.Sprint(number), b), b
}

// weigh returns a function that tells how long ago that was, and the most memory
// that berthd has had since.
func weigh(t *testing.T) func() (took time.Duration, peak int64) {
	t.Helper()
	start, stop, done := time.Now(), make(chan struct{}), make(chan struct{})
	var most atomic.Int64
	pid := berth.DaemonPID()
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if n, err := pss(pid); err == nil && n > most.Load() {
				most.Store(n)
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() (time.Duration, int64) {
		took := time.Since(start)
		close(stop)
		<-done
		if most.Load() == 0 {
			t.Error("nothing was learnt of berthd's memory")
		}
		return took, most.Load()
	}
}

// pss is the memory of a process that is its own, with its part of what it shares.
func pss(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "\nPss:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}

// stored is what Berth's content takes on disk, each file counted once.
func stored(t *testing.T) int64 {
	t.Helper()
	var sum int64
	seen := map[[2]uint64]bool{}
	err := filepath.WalkDir(filepath.Join(berth.Dir, "data", "images"), func(_ string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if key := [2]uint64{st.Dev, st.Ino}; !seen[key] {
			seen[key] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
