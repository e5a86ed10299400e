package images

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"

	"github.com/opencontainers/go-digest"
)

// Noise is random bytes, the same each time, which nobody holds in memory. The zero
// Noise is none.
type Noise struct {
	Seed uint64
	Size int64
}

// Open reads the bytes from their beginning.
func (n Noise) Open() io.ReadSeeker {
	return io.NewSectionReader(n, 0, n.Size)
}

// ReadAt implements io.ReaderAt.
func (n Noise) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset >= n.Size {
		return 0, io.EOF
	}
	var key, counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(key[:], n.Seed)
	binary.BigEndian.PutUint64(counter[8:], uint64(offset/aes.BlockSize))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return 0, err
	}
	stream := cipher.NewCTR(block, counter[:])
	var skipped [aes.BlockSize]byte
	stream.XORKeyStream(skipped[:offset%aes.BlockSize], skipped[:offset%aes.BlockSize])
	whole := p
	p = p[:min(int64(len(p)), n.Size-offset)]
	clear(p)
	stream.XORKeyStream(p, p)
	if len(p) < len(whole) {
		return len(p), io.EOF
	}
	return len(p), nil
}

// Digest reads all of it.
func (n Noise) Digest() (digest.Digest, error) { return digest.FromReader(n.Open()) }
