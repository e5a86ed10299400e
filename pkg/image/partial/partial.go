// Package partial keeps the beginnings of files that come from elsewhere, so that
// the next attempt goes on where one has ended, in another process too.
//
// A beginning is the directory <dir>/.partial-<name>. Beside the file lie two marks:
//
//	written       the bytes before it are in the file, and the kernel that has them;
//	              in slots that are written in turn
//	journal.json  the bytes before it are on disk, and so is the mark itself;
//	              written temp → rename
//
// The death of a process loses nothing that it has written, so the first counts
// until the machine has been started anew, which the kernel's boot id tells; then the
// second does. Neither says that the bytes are right: who goes on reads them again.
//
// Two goroutines write the marks behind who writes the file, the last one each time
// that they are free, durable ones now and then; they live from Open to Stop. The caller sees to it that a
// beginning is open once at a time.
package partial

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	prefix         = ".partial-"
	journalFile    = "journal.json"
	writtenFile    = "written"
	journalVersion = 2
	// durableStep is about how many bytes lie between two durable marks, each of which
	// writes some 60 KiB more.
	durableStep = 8 << 20
)

// Mark is a position from which a file can be gone on with. The zero Mark is the
// beginning.
type Mark struct {
	Offset int64  `json:"offset"` // in the file, in bytes
	State  []byte `json:"state"`  // what who brings the file needs
}

// journal is the durable mark.
type journal struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	Mark    Mark   `json:"mark"`
}

// File is a beginning. Its methods are for one goroutine.
type File struct {
	*os.File
	Dir string // where it lies

	name    string
	last    Mark
	synced  int64 // offset of the last mark that was handed on to be durable
	stopped bool
	done    sync.WaitGroup
	slots   slots
	written mailbox
	durable mailbox
}

// mailbox hands marks to a goroutine, which leaves its first error.
type mailbox struct {
	marks chan Mark // of one place
	err   error     // valid once the goroutine has ended
}

// Open opens what is there of the file base of a beginning, or begins it.
func Open(dir, name, base string) (*File, error) {
	p := &File{Dir: filepath.Join(dir, prefix+name), name: name}
	if err := os.Mkdir(p.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := statefile.Sweep(p.Dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.Dir, base), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p.File = f
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w, err := os.OpenFile(filepath.Join(p.Dir, writtenFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.slots = slots{file: w, name: name, boot: bootID()}
	for _, m := range []Mark{p.journaled(), p.slots.last()} {
		if m.Offset > p.last.Offset && m.Offset <= st.Size() {
			p.last = m
		}
	}
	p.synced = p.last.Offset
	p.serve(&p.written, p.slots.put)
	p.serve(&p.durable, p.sync)
	return p, nil
}

// journaled returns the durable mark, or none.
func (p *File) journaled() Mark {
	var j journal
	err := statefile.Read(filepath.Join(p.Dir, journalFile), &j)
	if err != nil || j.Version != journalVersion || j.Name != p.name {
		return Mark{}
	}
	return j.Mark
}

// bootID returns what changes with each start of the machine; "" where that is not
// known.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Last returns the last mark, from which the file is gone on with.
func (p *File) Last() Mark { return p.last }

// Forget begins the file anew.
func (p *File) Forget() error {
	p.last, p.synced = Mark{}, 0
	err := os.Remove(filepath.Join(p.Dir, journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, p.slots.file.Truncate(0), p.Truncate(0))
}

// Done removes the marks of a file that has become whole.
func (p *File) Done() error {
	var failed error
	for _, n := range []string{journalFile, writtenFile} {
		if err := os.Remove(filepath.Join(p.Dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = err
		}
	}
	return failed
}

// Note hands a mark over, whose bytes are in the file, and does not wait.
func (p *File) Note(m Mark) {
	if m.Offset <= p.last.Offset {
		return
	}
	p.last = m
	p.written.put(m)
	if m.Offset-p.synced >= durableStep {
		p.persist(m)
	}
}

// persist hands a mark to who puts it on disk.
func (p *File) persist(m Mark) {
	p.synced = m.Offset
	p.durable.put(m)
}

func (b *mailbox) put(m Mark) {
	select {
	case <-b.marks: // an older one that nobody has taken
	default:
	}
	b.marks <- m
}

func (p *File) serve(b *mailbox, use func(Mark) error) {
	b.marks = make(chan Mark, 1)
	p.done.Go(func() {
		for m := range b.marks {
			if b.err == nil {
				b.err = use(m)
			}
		}
	})
}

// sync puts what is before a mark on disk, then the mark.
func (p *File) sync(m Mark) error {
	if err := os.NewSyscallError("fdatasync", unix.Fdatasync(int(p.Fd()))); err != nil {
		return err
	}
	return statefile.WriteDurable(filepath.Join(p.Dir, journalFile), journal{journalVersion, p.name, m})
}

// Stop waits until the last mark is on disk. It is idempotent.
func (p *File) Stop() error {
	if !p.stopped {
		p.stopped = true
		if p.last.Offset > p.synced {
			p.persist(p.last)
		}
		close(p.written.marks)
		close(p.durable.marks)
	}
	p.done.Wait()
	_ = p.slots.file.Close() // marks are checked when they are read
	return errors.Join(p.written.err, p.durable.err)
}

// Abandon closes a file that is not whole. Where resume holds, it may be gone on
// with from its last mark; else it goes.
func (p *File) Abandon(resume bool) {
	journaled := p.Stop() == nil && p.last.Offset > 0
	_ = p.Close() // it is not whole
	if !resume || !journaled {
		_ = os.RemoveAll(p.Dir) // what stays is swept
	}
}

// Is reports whether a name in a store's directory is of a beginning.
func Is(name string) bool { return strings.HasPrefix(name, prefix) }

// Remove removes a beginning, unless its lock is held: who has one open holds it.
// That it is absent is no error.
func Remove(dir, name string, locks *keylock.Locks) error { return sweep(dir, name, 0, locks) }

// Sweep removes the beginnings in dir that nobody has gone on with for age, where
// their locks are free.
func Sweep(dir string, age time.Duration, locks *keylock.Locks) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, n := range names {
		if name, ok := strings.CutPrefix(n.Name(), prefix); ok {
			failed = append(failed, sweep(dir, name, age, locks))
		}
	}
	return errors.Join(failed...)
}

func sweep(dir, name string, age time.Duration, locks *keylock.Locks) error {
	now, cancel := context.WithCancel(context.Background())
	cancel() // the lock is taken where it is free
	unlock, err := locks.Lock(now, name)
	if err != nil {
		return nil // it goes on
	}
	defer unlock()
	path := filepath.Join(dir, prefix+name)
	if time.Since(noted(path)) < age {
		return nil
	}
	return os.RemoveAll(path)
}

// noted returns when a beginning has had its last mark; the zero Time where it has
// none.
func noted(dir string) (last time.Time) {
	for _, n := range []string{journalFile, writtenFile} {
		if info, err := os.Lstat(filepath.Join(dir, n)); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
