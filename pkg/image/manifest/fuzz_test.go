package manifest

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func FuzzManifest(f *testing.F) {
	sum := digest.FromString("x").String()
	f.Add("", []byte(`{"schemaVersion":2,"mediaType":"`+ispec.MediaTypeImageManifest+`","config":{"mediaType":"`+ispec.MediaTypeImageConfig+`","digest":"`+sum+`","size":1},"layers":[]}`))
	f.Add(ispec.MediaTypeImageIndex, []byte(`{"manifests":[{"digest":"`+sum+`","size":-1}]}`))
	f.Add(dockerList, []byte(`{"manifests":[{"digest":"../../etc","size":1}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		m, i, err := Parse(Document{Desc: ispec.Descriptor{MediaType: mediaType}, Data: data})
		if err != nil {
			return
		}
		var all []ispec.Descriptor
		if m != nil {
			all = append(append(all, m.Config), m.Layers...)
		} else {
			all = i.Manifests
			_, _ = choose(i, Host(), "") // must not panic
		}
		for _, d := range all {
			if d.Size < 0 || d.Digest.Validate() != nil {
				t.Errorf("descriptor %+v was let through", d)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("x").String() + `"]},"config":{"User":"0","Volumes":{"/../../etc":{}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		for _, d := range c.RootFS.DiffIDs {
			if d.Validate() != nil {
				t.Errorf("diffID %q was let through", d)
			}
		}
	})
}
