// Package treesum sums up a directory tree in a few numbers, to find out later
// whether it has lost something: a file or a name that is gone, a file that is
// empty or full of zeros, a byte that has changed.
//
// It is made for what disks and power cuts do, not for attackers: contents are
// summed by CRC-32C, which costs next to nothing while a file is written, and in
// no order, so that a tree can be read again in whatever order it lies. One sum
// serves a tree of any size; a list of files with their hashes would be as large
// as the tree's directories. Owners, modes and times are not in it: a file system
// commits these together with the name.
package treesum

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sum is what a tree adds up to. Sums of equal trees are equal.
type Sum struct {
	Names   int64  `json:"names"`   // of whatever kind, the root not counted
	Files   int64  `json:"files"`   // regular ones, each once however many names it has
	Bytes   int64  `json:"bytes"`   // of their contents
	Content uint64 `json:"content"` // of their checksums
}

// File sums up one file's content, which is written to it. The zero value is an
// empty file.
type File struct {
	crc  uint32
	size int64
}

var table = crc32.MakeTable(crc32.Castagnoli)

// Write implements io.Writer. It never fails.
func (f *File) Write(p []byte) (int, error) {
	f.crc = crc32.Update(f.crc, table, p)
	f.size += int64(len(p))
	return len(p), nil
}

// Add takes one file's content into the sum, and no name.
func (s *Sum) Add(f File) {
	s.Files++
	s.Bytes += f.size
	s.Content += mix(mix(uint64(f.crc)) ^ uint64(f.size))
}

// mix spreads the bits, so that two changes do not cancel each other out
// (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Diff says how a tree that adds up to got differs from what it was, or "" where
// it does not.
func (s Sum) Diff(got Sum) string {
	switch {
	case got.Names != s.Names:
		return fmt.Sprintf("has %d names where %d were made", got.Names, s.Names)
	case got.Files != s.Files || got.Bytes != s.Bytes:
		return fmt.Sprintf("has %d bytes in %d files where %d bytes in %d files were written", got.Bytes, got.Files, s.Bytes, s.Files)
	case got.Content != s.Content:
		return "has files with other content than what was written"
	}
	return ""
}

// Names counts the names below dir. It reads directories only.
func Names(ctx context.Context, dir string) (int64, error) {
	w := walk{}
	err := w.run(ctx, dir)
	return w.sum.Names, err
}

// Of reads the whole tree below dir, from the disk as far as the kernel lets go
// of what it holds in memory. Files with several names must not be changed
// meanwhile, and no link is followed.
func Of(ctx context.Context, dir string) (Sum, error) {
	w := walk{contents: true, seen: map[uint64]bool{}, buf: make([]byte, 256<<10)}
	err := w.run(ctx, dir)
	return w.sum, err
}

type walk struct {
	sum      Sum
	contents bool
	seen     map[uint64]bool // inodes with several names
	buf      []byte
}

func (w *walk) run(ctx context.Context, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return w.dir(ctx, os.NewFile(uintptr(fd), dir))
}

// dir walks an open directory, and closes it.
func (w *walk) dir(ctx context.Context, d *os.File) error {
	defer d.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			w.sum.Names++
			if err := w.entry(ctx, d, e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (w *walk) entry(ctx context.Context, d *os.File, e os.DirEntry) error {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	switch {
	case e.IsDir():
		flags |= unix.O_DIRECTORY
	case !e.Type().IsRegular() || !w.contents:
		return nil
	}
	fd, err := unix.Openat(int(d.Fd()), e.Name(), flags, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: d.Name() + "/" + e.Name(), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.Name()+"/"+e.Name())
	if e.IsDir() {
		return w.dir(ctx, f)
	}
	defer f.Close()
	return w.file(ctx, f)
}

func (w *walk) file(ctx context.Context, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Nlink > 1 {
		if w.seen[st.Ino] {
			return nil
		}
		w.seen[st.Ino] = true
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // else memory answers for the disk
	var sum File
	for {
		n, err := f.Read(w.buf)
		_, _ = sum.Write(w.buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
	w.sum.Add(sum)
	return nil
}
