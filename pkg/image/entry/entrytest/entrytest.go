// Package entrytest makes tar streams of layers for tests.
package entrytest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/image/entry"
)

// Item is one entry of a stream; a Name that ends in a slash is a directory.
type Item struct {
	Name, Link, Data string
	Kind             byte
	Mode             int64
	UID, GID         int
	Major, Minor     int64
	Xattrs           map[string]string
}

func (e Item) header() *tar.Header {
	h := &tar.Header{
		Name: e.Name, Linkname: e.Link, Typeflag: e.Kind, Mode: e.Mode, Uid: e.UID, Gid: e.GID, Size: int64(len(e.Data)),
		Devmajor: e.Major, Devminor: e.Minor, ModTime: time.Unix(1_500_000_000, 0), Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	if e.Kind == 0 {
		h.Typeflag = tar.TypeReg
		if strings.HasSuffix(e.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
	}
	if e.Mode == 0 {
		h.Mode = 0o644
	}
	for k, v := range e.Xattrs {
		h.PAXRecords[entry.XattrRecord+k] = v
	}
	return h
}

// Stream returns the tar stream of the items.
func Stream(t testing.TB, items ...Item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range items {
		if err := w.WriteHeader(e.header()); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Sparse is a file of size bytes, in PAX 1.0 sparse form, with one byte of
// data at its end.
func Sparse(t testing.TB, size int64) []byte {
	t.Helper()
	return SparseStream(t, size, "1\n"+itoa(size-1)+"\n1\n", []byte("x"))
}

// SparseStream is a file, big, in PAX 1.0 sparse form, of a map and what it maps.
func SparseStream(t testing.TB, size int64, sparseMap string, data []byte) []byte {
	t.Helper()
	body := sparseMap + strings.Repeat("\x00", 512-len(sparseMap)) + string(data)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	// The writer refuses the reserved names, so the PAX header is made by hand.
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "big") + record("GNU.sparse.realsize", itoa(size))
	for _, h := range []struct {
		header tar.Header
		data   string
	}{
		{tar.Header{Typeflag: tar.TypeReg, Name: "PaxHeaders.0/big", Size: int64(len(records)), Format: tar.FormatUSTAR}, records},
		{tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/big", Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}, body},
	} {
		if err := w.WriteHeader(&h.header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, h.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out := buf.Bytes()
	out[156] = tar.TypeXHeader
	return rechecksum(out)
}

// rechecksum mends the first header's checksum.
func rechecksum(b []byte) []byte {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], []byte(octal(sum)))
	return b
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func octal(n int) string { return fmt.Sprintf("%06o\x00 ", n) }

// record is one PAX record, which begins with its own length.
func record(k, v string) string {
	body := " " + k + "=" + v + "\n"
	n := len(body)
	for n != len(body)+len(strconv.Itoa(n)) {
		n = len(body) + len(strconv.Itoa(n))
	}
	return strconv.Itoa(n) + body
}

// GNU is one file of any name; archive/tar writes none that is not UTF-8.
func GNU(name, data string) []byte {
	var b [1024 + 1024]byte
	copy(b[:], name)
	copy(b[100:], "0000644\x000000000\x000000000\x00"+fmt.Sprintf("%011o\x00", len(data))+"00000000000\x00        0")
	copy(b[257:], "ustar  \x00")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	copy(b[512:], data)
	return b[:]
}
