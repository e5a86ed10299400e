package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compression is how a layer is packed.
type Compression int

// The ways to pack a layer.
const (
	Gzip Compression = iota
	Zstd
	Plain
)

// Type is what a File is.
type Type byte

// The types of files. Regular is the zero value: a name that ends in a slash is
// a directory all the same.
const (
	Regular Type = iota
	Symlink
	Hardlink
	CharDevice
	Fifo
)

// File is one entry of a layer.
type File struct {
	Name         string
	Type         Type
	Data         []byte
	Link         string // target of a Symlink or Hardlink
	Mode         int64  // zero means 0644
	UID, GID     int
	Major, Minor int64 // of a CharDevice
	Xattrs       map[string]string
	ModTime      time.Time
}

// Layer is a list of files, in the order of the tar stream; Tar, where it is
// not nil, is the stream itself.
type Layer struct {
	Files       []File
	Tar         []byte
	Compression Compression
}

func (f File) header() *tar.Header {
	h := &tar.Header{
		Name: f.Name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Linkname: f.Link, ModTime: f.ModTime,
		Devmajor: f.Major, Devminor: f.Minor, Format: tar.FormatPAX,
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	if h.ModTime.IsZero() {
		h.ModTime = time.Unix(1_600_000_000, 0)
	}
	for k, v := range f.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	switch {
	case f.Type == Symlink:
		h.Typeflag = tar.TypeSymlink
	case f.Type == Hardlink:
		h.Typeflag = tar.TypeLink
	case f.Type == CharDevice:
		h.Typeflag = tar.TypeChar
	case f.Type == Fifo:
		h.Typeflag = tar.TypeFifo
	case strings.HasSuffix(f.Name, "/"):
		h.Typeflag = tar.TypeDir
	default:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Data))
	}
	return h
}

// Stream returns the layer's tar stream.
func (l Layer) Stream() ([]byte, error) {
	if l.Tar != nil {
		return l.Tar, nil
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range l.Files {
		h := f.header()
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("entry %q: %w", f.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(f.Data); err != nil {
				return nil, err
			}
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

// pack returns the layer as it is pushed, and the digest of its tar stream.
func (l Layer) pack() ([]byte, digest.Digest, error) {
	stream, err := l.Stream()
	if err != nil {
		return nil, "", err
	}
	packed, err := l.Compression.Pack(stream)
	return packed, digest.FromBytes(stream), err
}

// Pack compresses data.
func (c Compression) Pack(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	switch c {
	case Gzip:
		w := gzip.NewWriter(&buf)
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
		err := w.Close()
		return buf.Bytes(), err
	case Zstd:
		w, err := zstd.NewWriter(nil)
		if err != nil {
			return nil, err
		}
		return w.EncodeAll(data, nil), nil
	default:
		return data, nil
	}
}

func (l Layer) mediaType(docker bool) string {
	if docker && l.Compression == Gzip {
		return DockerLayer
	}
	switch l.Compression {
	case Zstd:
		return ispec.MediaTypeImageLayerZstd
	case Plain:
		return ispec.MediaTypeImageLayer
	default:
		return ispec.MediaTypeImageLayerGzip
	}
}
