package vm_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-run/berth/test/vm"
)

func sha256sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// built is the directory of what make build has made. Without it there is nothing
// to test.
func built(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("BERTH_BIN")
	if bin == "" {
		t.Skip("BERTH_BIN is not set: run make vm")
	}
	return bin
}

// boot starts a machine that has the tools, and ends it with the test.
func boot(ctx context.Context, t *testing.T, from vm.Root, tools map[string]string, o vm.Options) *vm.Machine {
	t.Helper()
	dir, err := filepath.Abs(*cache)
	must(t, err)
	o.Root, err = from.Make(ctx, dir)
	must(t, err)
	o.Tools = filepath.Join(t.TempDir(), "tools.img")
	must(t, vm.MakeTools(ctx, o.Tools, tools))
	began := time.Now()
	m, err := vm.Boot(ctx, o)
	must(t, err)
	t.Cleanup(m.Kill)
	t.Logf("booted in %s", time.Since(began).Round(time.Second))
	return m
}

// fill makes data that half compresses.
func fill(r *rand.Rand, data []byte) {
	for n := 0; n+8 <= len(data); n += 16 {
		binary.LittleEndian.PutUint64(data[n:], r.Uint64())
	}
}
