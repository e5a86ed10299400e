package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/digester"
	"github.com/berth-run/berth/pkg/image/erofs"
	"github.com/berth-run/berth/pkg/image/tree"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// imageID names the EROFS image of a stack.
func imageID(diffIDs []digest.Digest) digest.Digest {
	b := strings.Builder{}
	b.WriteString("berth erofs image 1\n")
	for _, d := range diffIDs {
		b.WriteString(d.String() + "\n")
	}
	return digest.FromString(b.String())
}

// compose makes the EROFS image of layers that are here as tar streams.
func (s *Store) compose(ctx context.Context, diffIDs []digest.Digest, keep func(...digest.Digest)) (digest.Digest, error) {
	id := imageID(diffIDs)
	keep(id)
	unlock, err := s.locks.Lock(ctx, name(id))
	if err != nil {
		return "", err
	}
	defer unlock()
	if s.Has(id) {
		return id, nil
	}
	s.composing.Lock()
	root, err := tree.Compose(len(diffIDs), func(n int) ([]byte, error) { return s.index(ctx, diffIDs[n]) })
	if err == nil {
		err = s.write(id, diffIDs, root)
	}
	s.composing.Unlock()
	if err != nil {
		return "", fmt.Errorf("compose image: %w", room.Explain(err, s.dir, 0))
	}
	return id, nil
}

// index returns the encoded index of a layer, made again from its tar stream where
// it is damaged.
func (s *Store) index(ctx context.Context, diffID digest.Digest) ([]byte, error) {
	p := filepath.Join(s.dir, name(diffID))
	b, err := os.ReadFile(filepath.Join(p, indexFile))
	if err == nil && tree.Valid(b) {
		return b, nil
	}
	f, err := os.Open(filepath.Join(p, tarFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := tree.Scan(struct {
		io.Reader
		io.Seeker
	}{blob.ContextReader(ctx, f), f}, s.options.Limits)
	if err != nil {
		return nil, err
	}
	b = x.Encode()
	return b, statefile.WriteBytes(filepath.Join(p, indexFile), b, 0o600, true)
}

// write writes an image with its record and gives it its name.
func (s *Store) write(id digest.Digest, diffIDs []digest.Digest, root *tree.Node) error {
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	f, err := os.OpenFile(filepath.Join(temp, imageFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := digester.New(digest.SHA256)
	info := Info{Version: infoVersion, DiffID: id, Layers: diffIDs}
	w := &counter{w: io.MultiWriter(f, sum)}
	uuid := [16]byte([]byte(id.Encoded())[:16])
	info.Devices, err = erofs.Write(w, root, uuid, func(d erofs.Device) (int64, error) {
		st, err := os.Stat(s.device(diffIDs[d.Layer], d))
		if err != nil {
			return 0, err
		}
		return st.Size(), nil
	})
	if err != nil {
		return err
	}
	info.Stored, info.Sum = w.n, digest.NewDigest(digest.SHA256, sum)
	if err := errors.Join(s.marks.Add(name(id)), f.Sync()); err != nil {
		return err
	}
	protect(f.Name(), s.options.Verity)
	if err := statefile.WriteDurable(filepath.Join(temp, imageRecord), info); err != nil {
		return err
	}
	return s.rename(temp, id)
}

// device is the file that a device of an image is.
func (s shelf) device(diffID digest.Digest, d erofs.Device) string {
	file := tarFile
	if d.Spill {
		file = spillFile
	}
	return filepath.Join(s.dir, name(diffID), file)
}

// counter counts what it passes on.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
