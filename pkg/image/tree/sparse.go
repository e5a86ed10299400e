package tree

import (
	"archive/tar"
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// pieces returns where a sparse file has content, which lies in the archive piece
// after piece; false where the file is not sparse. seen ends with the entry's
// headers and map, which archive/tar has found to be right: it checks maps, but
// does not tell them.
func pieces(h *tar.Header, seen []byte) ([]Extent, bool, error) {
	if h.Typeflag != tar.TypeGNUSparse && h.PAXRecords["GNU.sparse.major"] == "" && h.PAXRecords["GNU.sparse.map"] == "" {
		return nil, false, nil
	}
	main, rest, ok := mainHeader(seen)
	if !ok {
		return nil, false, errSparse
	}
	var extents []Extent
	major, minor := h.PAXRecords["GNU.sparse.major"], h.PAXRecords["GNU.sparse.minor"]
	switch {
	case h.Typeflag == tar.TypeGNUSparse:
		extents, ok = oldMap(main, rest)
	case major == "1" && minor == "0":
		fields := strings.Split(string(rest), "\n")
		n, err := strconv.Atoi(fields[0])
		if ok = err == nil && n >= 0 && n < len(fields)/2; ok {
			extents, ok = textMap(fields[1 : 1+2*n])
		}
	case major == "0" && (minor == "0" || minor == "1"), major == "" && minor == "":
		if m := h.PAXRecords["GNU.sparse.map"]; m != "" {
			extents, ok = textMap(strings.Split(m, ","))
		}
	default:
		return nil, false, nil // archive/tar takes it for a plain file
	}
	if !ok {
		return nil, false, errSparse
	}
	end, sum := int64(0), int64(0)
	for _, e := range extents {
		if e.Offset < end || e.Size < 0 || e.Offset+e.Size > h.Size || e.Offset+e.Size < e.Offset {
			return nil, false, errSparse
		}
		end, sum = e.Offset+e.Size, sum+e.Size
	}
	extents = slices.DeleteFunc(extents, func(e Extent) bool { return e.Size == 0 })
	stored, ok := storedSize(h, main)
	if major == "1" {
		stored -= int64(len(rest)) // the map is part of the content
	}
	if !ok || sum != stored {
		return nil, false, errSparse
	}
	return extents, true, nil
}

// mainHeader finds the entry's own header behind those that only describe it, and
// what follows it.
func mainHeader(seen []byte) (main, rest []byte, ok bool) {
	for len(seen) >= blockSize {
		main, seen = seen[:blockSize], seen[blockSize:]
		switch main[156] {
		case tar.TypeXHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			n, ok := number(main[124:136])
			if n = align(n, blockSize); !ok || n < 0 || n > int64(len(seen)) {
				return nil, nil, false
			}
			seen = seen[n:]
			continue
		}
		return main, seen, true
	}
	return nil, nil, false
}

// number reads a field of a header, octal or binary.
func number(b []byte) (int64, bool) {
	if b[0]&0x80 != 0 {
		if b[0] != 0x80 || len(b) < 8 {
			return 0, false
		}
		n := int64(binary.BigEndian.Uint64(b[len(b)-8:]))
		return n, n >= 0
	}
	text := strings.Trim(string(b), " \x00")
	if text, _, _ = strings.Cut(text, "\x00"); text == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 8, 64)
	return n, err == nil && n >= 0
}

// storedSize is what the entry takes in the archive, without padding.
func storedSize(h *tar.Header, main []byte) (int64, bool) {
	if v := h.PAXRecords["size"]; v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return number(main[124:136])
}

// oldMap reads the map of GNU's old format: pairs in the header and in the blocks
// after it.
func oldMap(main, rest []byte) ([]Extent, bool) {
	var extents []Extent
	pairs, more := main[386:386+4*24], main[482]
	for {
		for ; len(pairs) >= 24 && pairs[0] != 0; pairs = pairs[24:] {
			offset, ok1 := number(pairs[:12])
			size, ok2 := number(pairs[12:24])
			if !ok1 || !ok2 {
				return nil, false
			}
			extents = append(extents, Extent{offset, size})
		}
		if more == 0 {
			return extents, true
		}
		if len(rest) < blockSize {
			return nil, false
		}
		pairs, more, rest = rest[:21*24], rest[504], rest[blockSize:]
	}
}

// textMap reads pairs of decimal numbers.
func textMap(fields []string) ([]Extent, bool) {
	if len(fields)%2 != 0 {
		return nil, false
	}
	var extents []Extent
	for ; len(fields) > 0; fields = fields[2:] {
		offset, err1 := strconv.ParseInt(fields[0], 10, 64)
		size, err2 := strconv.ParseInt(fields[1], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, false
		}
		extents = append(extents, Extent{offset, size})
	}
	return extents, true
}

const (
	minChunkBits = 9
	maxChunkBits = 30
	maxChunks    = 64 << 10 // of one file
)

// ChunkBits returns the size of the chunks, as a power of two, each all content or
// all hole, that the sparse file i with Extents has.
func ChunkBits(i *Inode) int {
	n, _ := chunkBits(i.Extents, i.Size, i.Data.Offset) // Scan has looked
	return n
}

// chunkBits is ChunkBits of a file whose content begins at a place in the tar. The
// error says that it cannot be shown from there.
func chunkBits(extents []Extent, size, at int64) (int, error) {
	edges := at % blockSize
	for _, e := range extents {
		edges |= e.Offset
		if end := e.Offset + e.Size; end != size {
			edges |= end
		}
	}
	n := min(bits.TrailingZeros64(uint64(edges)), maxChunkBits)
	if n < minChunkBits || size>>n >= maxChunks {
		return 0, errSparse
	}
	return n, nil
}
