//go:build cgo

package inflate

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// The flags of a member's header (RFC 1952).
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

// maxHeaderText bounds a member's name and its comment, as Go does.
const maxHeaderText = 512

var (
	errHeader   = errors.New("gzip: invalid header")
	errChecksum = errors.New("gzip: invalid checksum")
	errDeflate  = errors.New("gzip: corrupt deflate data")
)

// gzipReader reads members; what is in them is deflate's.
type gzipReader struct {
	in     *input
	body   *deflate
	inside bool
	crc    uint32
	size   uint32
}

func newGzip(in *input, from *State) (decoder, error) {
	g := &gzipReader{in: in, body: newDeflate(in)}
	if from == nil || from.Member == nil {
		return g, nil
	}
	g.inside, g.crc, g.size = true, from.Member.CRC, from.Member.Size
	return g, g.body.restore(from.Member)
}

func (g *gzipReader) next() ([]byte, error) {
	for {
		if !g.inside {
			if err := g.header(); err != nil {
				return nil, err
			}
			g.inside, g.crc, g.size = true, 0, 0
			g.body.reset()
		}
		p, err := g.body.next()
		if err != nil {
			return nil, err
		}
		g.crc = crc32.Update(g.crc, crc32.IEEETable, p)
		g.size += uint32(len(p))
		if g.body.ended() {
			if err := g.trailer(); err != nil {
				return nil, err
			}
			g.inside = false
		}
		if len(p) > 0 {
			return p, nil
		}
	}
}

func (g *gzipReader) position() (int64, bool) { return g.in.offset, true }

func (g *gzipReader) mark() State {
	s := State{Kind: kindGzip}
	if g.inside {
		s.Member = g.body.save()
		s.Member.CRC, s.Member.Size = g.crc, g.size
	}
	return s
}

func (g *gzipReader) full() bool           { return g.body.full() }
func (g *gzipReader) place(buf []byte) int { return g.body.place(buf) }
func (g *gzipReader) close()               {}

// trailer reads what follows a member.
func (g *gzipReader) trailer() error {
	b, err := g.take(8)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != g.crc || binary.LittleEndian.Uint32(b[4:]) != g.size {
		return errChecksum
	}
	return nil
}

// take uses up the next n bytes.
func (g *gzipReader) take(n int) ([]byte, error) {
	b, err := g.in.peek(n)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, io.ErrUnexpectedEOF
	}
	g.in.skip(n)
	return b, nil
}

// header reads a member's header, or answers io.EOF where there is none.
func (g *gzipReader) header() error {
	b, err := g.in.peek(1)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return io.EOF
	}
	b, err = g.take(10)
	if err != nil {
		return err
	}
	if b[0] != gzipMagic[0] || b[1] != gzipMagic[1] || b[2] != 8 {
		return errHeader
	}
	flags, sum := b[3], crc32.ChecksumIEEE(b)
	if flags&flagExtra != 0 {
		if sum, err = g.extra(sum); err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		if sum, err = g.text(sum); err != nil {
			return err
		}
	}
	if flags&flagHeaderCRC == 0 {
		return nil
	}
	if b, err = g.take(2); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(b) != uint16(sum) {
		return errHeader
	}
	return nil
}

func (g *gzipReader) extra(sum uint32) (uint32, error) {
	b, err := g.take(2)
	if err != nil {
		return 0, err
	}
	sum = crc32.Update(sum, crc32.IEEETable, b)
	for left := int(binary.LittleEndian.Uint16(b)); left > 0; left -= len(b) {
		if b, err = g.take(min(left, maxHeld)); err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, crc32.IEEETable, b)
	}
	return sum, nil
}

func (g *gzipReader) text(sum uint32) (uint32, error) {
	for range maxHeaderText {
		b, err := g.take(1)
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, crc32.IEEETable, b)
		if b[0] == 0 {
			return sum, nil
		}
	}
	return 0, errHeader
}
