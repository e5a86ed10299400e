package inflate

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth/pkg/errs"
)

func packed(t *testing.T, text string) map[string][]byte {
	t.Helper()
	var g, z bytes.Buffer
	zw, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{gzip.NewWriter(&g), zw} {
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	skipped := append([]byte{0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'x', 'x'}, z.Bytes()...)
	return map[string][]byte{"plain": []byte(text), "gzip": g.Bytes(), "zstd": z.Bytes(), "zstd after a skippable frame": skipped}
}

// inflated reads r to its end.
func inflated(r io.Reader) (string, error) {
	plain, err := Stream(r)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(plain)
	return string(data), errors.Join(err, plain.Close())
}

func TestStreamsAreToldApartByTheirBytes(t *testing.T) {
	text := strings.Repeat("content ", 100)
	for name, data := range packed(t, text) {
		if got, err := inflated(bytes.NewReader(data)); err != nil || got != text {
			t.Errorf("%s: %.20q, %v", name, got, err)
		}
		if name == "plain" {
			continue
		}
		data[len(data)-1] ^= 1
		if _, err := inflated(bytes.NewReader(data)); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s, damaged: %v", name, err)
		}
		broken := errors.New("the source's own")
		if _, err := inflated(io.MultiReader(bytes.NewReader(data[:len(data)/2]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, errs.Invalid) {
			t.Errorf("%s, broken off: %v", name, err)
		}
	}
	for _, other := range []string{"\xfd7zXZ\x00", "BZh91AY"} {
		if _, err := inflated(strings.NewReader(other)); !errors.Is(err, errs.Unsupported) {
			t.Errorf("%q: %v", other, err)
		}
	}
}
