// Package images makes small OCI images for tests, demos and benchmarks, so
// that none of them needs a registry or a download.
//
// An Image is a value: layers of files and a config. Build turns it into the
// blobs of a manifest; OCIArchive and DockerArchive write files that a runtime
// loads; the blobs may as well be pushed into test/registry.
package images

import (
	_ "crypto/sha256" // go-digest finds it by registration
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, beside those of the OCI image specification.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Image describes an image to build. The zero value is an empty image of this
// machine's platform.
type Image struct {
	Config   ispec.ImageConfig
	Platform ispec.Platform // zero means linux on this architecture
	Layers   []Layer
	Docker   bool // use Docker's media types
	Created  time.Time
}

// Built is an image, or an index of them, as blobs. Root describes the blob to
// begin with.
type Built struct {
	Root   ispec.Descriptor
	Config digest.Digest // of the config; the first image's where Root is an index
	Blobs  map[digest.Digest][]byte
	Layers []ispec.Descriptor      // the first image's
	Noise  map[digest.Digest]Noise // blobs, too
}

// add keeps data as a blob of the given media type.
func (b *Built) add(mediaType string, data []byte) ispec.Descriptor {
	if b.Blobs == nil {
		b.Blobs = map[digest.Digest][]byte{}
	}
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.Blobs[d.Digest] = data
	return d
}

func (b *Built) addJSON(mediaType string, v any) (ispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	return b.add(mediaType, data), nil
}

// Build makes the image's blobs.
func (i Image) Build() (*Built, error) {
	b := &Built{}
	platform := i.Platform
	if platform.OS == "" {
		platform = ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	config := ispec.Image{Platform: platform, Config: i.Config, RootFS: ispec.RootFS{Type: "layers"}}
	if !i.Created.IsZero() {
		config.Created = &i.Created
	}
	for _, l := range i.Layers {
		packed, diffID, err := l.pack()
		if err != nil {
			return nil, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ispec.History{CreatedBy: "test/images"})
		b.Layers = append(b.Layers, b.add(l.mediaType(i.Docker), packed))
	}
	manifestType, configType := ispec.MediaTypeImageManifest, ispec.MediaTypeImageConfig
	if i.Docker {
		manifestType, configType = DockerManifest, DockerConfig
	}
	c, err := b.addJSON(configType, config)
	if err != nil {
		return nil, err
	}
	b.Config = c.Digest
	b.Root, err = b.addJSON(manifestType, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: c, Layers: b.Layers,
	})
	b.Root.Platform = &platform
	return b, err
}

// BuildIndex makes one index over several images, of different platforms.
func BuildIndex(images ...Image) (*Built, error) {
	all := &Built{Blobs: map[digest.Digest][]byte{}}
	mediaType := ispec.MediaTypeImageIndex
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for n, i := range images {
		b, err := i.Build()
		if err != nil {
			return nil, err
		}
		if n == 0 {
			all.Config, all.Layers = b.Config, b.Layers
		}
		if i.Docker {
			mediaType = DockerList
		}
		for d, data := range b.Blobs {
			all.Blobs[d] = data
		}
		index.Manifests = append(index.Manifests, b.Root)
	}
	index.MediaType = mediaType
	var err error
	all.Root, err = all.addJSON(mediaType, index)
	return all, err
}

// FromBinary makes an image that holds one static program at /bin/<name> and
// runs it, with the few files that a container expects. The names in links
// become symbolic links to it in /bin.
func FromBinary(path, name string, links ...string) (Image, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return Image{}, err
	}
	l := Layer{Files: []File{
		{Name: "bin/", Mode: 0o755},
		{Name: "dev/", Mode: 0o755},
		{Name: "etc/", Mode: 0o755},
		{Name: "home/", Mode: 0o755},
		{Name: "proc/", Mode: 0o755},
		{Name: "root/", Mode: 0o700},
		{Name: "run/", Mode: 0o755},
		{Name: "sys/", Mode: 0o755},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/bin/", Mode: 0o755},
		{Name: "var/", Mode: 0o755},
		{Name: "etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{Name: "etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Name: "bin/" + name, Data: program, Mode: 0o755},
	}}
	for _, n := range links {
		l.Files = append(l.Files, File{Name: "bin/" + n, Link: name, Type: Symlink})
	}
	return Image{
		Config: ispec.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: []string{"/bin/" + name},
		},
		Layers:  []Layer{l},
		Created: time.Unix(1_700_000_000, 0).UTC(),
	}, nil
}

// Busybox makes an image of this machine's static busybox, each of its applets
// a link in /bin, with /bin/sh to run.
func Busybox() (Image, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return Image{}, fmt.Errorf("find a static busybox (Debian's busybox-static): %w", err)
	}
	if err := Static(path); err != nil {
		return Image{}, err
	}
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("list busybox's applets: %w", err)
	}
	var applets []string
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" && !strings.ContainsAny(a, "/[") {
			applets = append(applets, a)
		}
	}
	i, err := FromBinary(path, "busybox", applets...)
	i.Config.Cmd = []string{"/bin/sh"}
	return i, err
}
