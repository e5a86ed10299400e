package registry_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/fetch"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry"
	testregistry "github.com/berth-run/berth/test/registry"
)

// BenchmarkBlob fetches 200 MB from this process, over one connection and over as
// many as help.
func BenchmarkBlob(b *testing.B) {
	data := make([]byte, 200_000_000)
	d := ispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	for name, line := range map[string]testregistry.Line{
		"loopback": {}, "20 ms, 50 MB a second": {Latency: 20 * time.Millisecond, Bandwidth: 50_000_000},
	} {
		for _, connections := range []int64{1, 24} {
			b.Run(fmt.Sprintf("%s/connections %d", name, connections), func(b *testing.B) {
				s := testregistry.Start(&testregistry.Registry{Line: line})
				defer s.Close()
				s.SetBlob(d.Digest, data)
				c := registry.New(registry.Options{Connections: fetch.NewBudget(connections)})
				defer c.Close()
				r, err := c.Repository(reference.Name{Domain: s.Host, Path: "app"}, registry.Auth{})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(d.Size)
				for b.Loop() {
					body, err := r.Blob(b.Context(), d, 0)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, body); err != nil || n != d.Size {
						b.Fatal(n, err)
					}
					body.Close()
				}
			})
		}
	}
}
