package partial

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// A file of slots holds a mark twice, written in turn and in place, so that one is
// whole whenever its writer dies: this happens for each MiB of a pull.
//
//	slot: checksum of the rest (4) | offset (8) | length of the state (4) |
//	      of the boot id (2) | of the name (2) | state | boot id | name
const (
	slotSize   = 1 << 20 // and a hole, mostly
	slotHeader = 4 + 8 + 4 + 2 + 2
	// slotVersion is what checksums begin with.
	slotVersion = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errLarge says that a mark has no room: the durable one has to do.
var errLarge = errors.New("mark is larger than its slot")

// slots writes marks of one name and boot.
type slots struct {
	file       *os.File
	name, boot string
	next       int64 // slot
	buf        []byte
}

// put writes a mark over the one before the last.
func (s *slots) put(m Mark) error {
	b := s.buf[:0]
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Offset))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.State)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s.boot)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s.name)))
	b = append(b, m.State...)
	b = append(b, s.boot...)
	b = append(b, s.name...)
	s.buf = b
	if len(b) > slotSize {
		return errLarge
	}
	binary.LittleEndian.PutUint32(b, crc32.Update(slotVersion, castagnoli, b[4:]))
	_, err := s.file.WriteAt(b, s.next*slotSize)
	s.next = 1 - s.next
	return err
}

// last returns the later of the marks that are whole and of this name and boot, or
// none. The next one is written over the other.
func (s *slots) last() (last Mark) {
	for n := range int64(2) {
		if m, ok := s.read(n); ok && m.Offset > last.Offset {
			last, s.next = m, 1-n
		}
	}
	return last
}

func (s *slots) read(n int64) (m Mark, ok bool) {
	var header [slotHeader]byte
	if _, err := s.file.ReadAt(header[:], n*slotSize); err != nil {
		return m, false
	}
	state, boot, name := binary.LittleEndian.Uint32(header[12:]), binary.LittleEndian.Uint16(header[16:]), binary.LittleEndian.Uint16(header[18:])
	length := int64(state) + int64(boot) + int64(name)
	if slotHeader+length > slotSize {
		return m, false
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(s.file, n*slotSize+slotHeader, length), rest); err != nil {
		return m, false
	}
	sum := crc32.Update(crc32.Update(slotVersion, castagnoli, header[4:]), castagnoli, rest)
	if sum != binary.LittleEndian.Uint32(header[:]) || string(rest[state:]) != s.boot+s.name || int(boot) != len(s.boot) || s.boot == "" {
		return m, false
	}
	return Mark{Offset: int64(binary.LittleEndian.Uint64(header[4:])), State: rest[:state:state]}, true
}
