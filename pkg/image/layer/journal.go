package layer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	journalFile    = "journal.json"
	journalVersion = 1
	// partialPrefix begins the name of a directory that holds the beginning of a
	// layer's tar stream and a journal: how far it is on disk.
	partialPrefix = ".partial-"
)

// journal is how far a layer has come.
type journal struct {
	Version int           `json:"version"`
	DiffID  digest.Digest `json:"diffID"`
	Mark    Mark          `json:"mark"`
}

// partial is the beginning of a layer on disk. One goroutine writes the journal
// behind the writer of the stream, the last mark each time that it is free.
type partial struct {
	dir    string
	diffID digest.Digest
	file   *os.File // the tar

	marks chan Mark // of one place
	last  Mark      // that was handed over
	done  sync.WaitGroup
	err   error // of the goroutine, valid after stop
}

// openPartial opens what is there of a layer, or begins it.
func (s shelf) openPartial(diffID digest.Digest) (*partial, error) {
	p := &partial{dir: filepath.Join(s.dir, partialPrefix+name(diffID)), diffID: diffID, marks: make(chan Mark, 1)}
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.dir, tarFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p.file = f
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var j journal
	err = statefile.Read(filepath.Join(p.dir, journalFile), &j)
	if err == nil && j.Version == journalVersion && j.DiffID == diffID && j.Mark.Offset > 0 && j.Mark.Offset <= st.Size() {
		p.last = j.Mark
	}
	p.done.Go(p.write)
	return p, nil
}

// forget begins the layer anew.
func (p *partial) forget() error {
	p.last = Mark{}
	err := os.Remove(filepath.Join(p.dir, journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, p.file.Truncate(0))
}

// note hands a mark over, whose bytes are in the file, and does not wait.
func (p *partial) note(m Mark) {
	if m.Offset <= p.last.Offset {
		return
	}
	p.last = m
	select {
	case <-p.marks: // an older one that nobody has taken
	default:
	}
	p.marks <- m
}

// write puts what is before a mark on disk, then the mark.
func (p *partial) write() {
	for m := range p.marks {
		if p.err != nil {
			continue
		}
		if p.err = os.NewSyscallError("fdatasync", unix.Fdatasync(int(p.file.Fd()))); p.err == nil {
			p.err = statefile.WriteDurable(filepath.Join(p.dir, journalFile), journal{journalVersion, p.diffID, m})
		}
	}
}

// stop waits until the last mark is on disk.
func (p *partial) stop() error {
	close(p.marks)
	p.done.Wait()
	return p.err
}

// abandon closes a layer that is not whole. Where resume holds, the next process
// may go on from its mark; else it goes.
func (p *partial) abandon(resume bool) {
	journaled := p.stop() == nil && p.last.Offset > 0
	_ = p.file.Close() // it is not whole
	if !resume || !journaled {
		_ = os.RemoveAll(p.dir) // what stays is swept
	}
}

// Sweep removes beginnings of layers that nobody has gone on from for age.
func (s *Store) Sweep(age time.Duration) error {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	now, cancel := context.WithCancel(context.Background())
	cancel() // locks are taken where they are free
	var failed []error
	for _, n := range names {
		layer, ok := strings.CutPrefix(n.Name(), partialPrefix)
		if !ok {
			continue
		}
		unlock, err := s.locks.Lock(now, layer)
		if err != nil {
			continue // it goes on
		}
		if info, err := os.Lstat(filepath.Join(s.dir, n.Name(), journalFile)); err != nil || time.Since(info.ModTime()) >= age {
			failed = append(failed, os.RemoveAll(filepath.Join(s.dir, n.Name())))
		}
		unlock()
	}
	return errors.Join(failed...)
}
