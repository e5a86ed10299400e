package crilog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options says what Read returns. The zero value returns what is in the file
// now.
type Options struct {
	// Follow waits for more, across rotation, until the context ends or Ended
	// says so.
	Follow bool
	// Tail, where positive, skips all but the last lines of the file, counting
	// the parts of a long line as one.
	Tail int
	// NoHistory skips what is in the file now.
	NoHistory bool
	// Since skips older records.
	Since time.Time
	// Ended, where set, is asked when the end of the file has been reached: once
	// it is true, what is left is read and Read returns.
	Ended func() bool
}

// pollInterval is how long a follower waits at the end of a file. Polling needs
// no inotify watch, of which nodes run out.
const pollInterval = 20 * time.Millisecond

// maxRecord bounds a line of the file: the text, and what stands before it.
const maxRecord = MaxLine + 1024

// Read calls f for each record of the log at path, in order. Lines that are not
// records are skipped. It returns f's error, or the context's.
func Read(ctx context.Context, path string, o Options, f func(Record) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was read
	if err := seek(file, &o); err != nil {
		return fmt.Errorf("read log %s: %w", path, err)
	}
	r := &follower{path: path, file: file, o: &o, emit: f}
	defer func() { file = r.file }()
	return r.run(ctx)
}

// seek sets file to where o begins.
func seek(file *os.File, o *Options) error {
	if o.NoHistory {
		_, err := file.Seek(0, io.SeekEnd)
		return err
	}
	if o.Tail <= 0 {
		return nil
	}
	at, err := tailOffset(file, o.Tail)
	if err != nil {
		return err
	}
	_, err = file.Seek(at, io.SeekStart)
	return err
}

// tailOffset returns where the last n lines begin. It reads from the end.
func tailOffset(file *os.File, n int) (int64, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	const block = 64 << 10
	var held []byte // from the block's beginning to the last line's end seen so far
	begin, end := size, size
	for at := size; at > 0; {
		step := min(at, block)
		at -= step
		buf := make([]byte, step, int(step)+len(held))
		if _, err := file.ReadAt(buf, at); err != nil {
			return 0, err
		}
		held = append(buf, held...)
		for {
			body := bytes.TrimSuffix(held[:end-at], []byte{'\n'})
			i := bytes.LastIndexByte(body, '\n')
			if i < 0 && at > 0 {
				if end-at > 1<<20 {
					end = at // no record is as long: forget the garbage
				}
				break
			}
			if r, err := Parse(body[i+1:]); err == nil && !r.Partial {
				if n == 0 {
					return begin, nil
				}
				n--
			}
			begin, end = at+int64(i+1), at+int64(i+1)
			if end <= at {
				break
			}
		}
		held = held[:end-at]
	}
	return begin, nil
}

// follower reads lines of a file that grows and is replaced.
type follower struct {
	path string
	file *os.File
	o    *Options
	emit func(Record) error

	buf     []byte // from the beginning of an unfinished line
	skips   bool   // the line is too long to be a record
	at      int64
	pending bool // Ended has said yes; read what is left
}

func (r *follower) run(ctx context.Context) error {
	r.buf = make([]byte, 0, 64<<10)
	var err error
	if r.at, err = r.file.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.fill()
		if err != nil {
			return fmt.Errorf("read log %s: %w", r.path, err)
		}
		if n > 0 {
			if err := r.lines(); err != nil {
				return err
			}
			continue
		}
		more, err := r.wait(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// fill reads what comes next; 0 is the present end.
func (r *follower) fill() (int, error) {
	if len(r.buf) == cap(r.buf) {
		r.buf, r.skips = r.buf[:0], true
	}
	n, err := r.file.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	r.at += int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// lines emits the whole lines in buf.
func (r *follower) lines() error {
	rest := r.buf
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if !found {
			break
		}
		rest = after
		tooLong := r.skips || len(line) > maxRecord
		r.skips = false
		if tooLong {
			continue
		}
		record, err := Parse(line)
		if err != nil || record.Time.Before(r.o.Since) {
			continue
		}
		if err := r.emit(record); err != nil {
			return err
		}
	}
	r.buf = r.buf[:copy(r.buf[:cap(r.buf)], rest)]
	return nil
}

// wait is called at the end of the file. It goes on to the file that rotation
// has put in its place, and reports whether there may be more to read.
func (r *follower) wait(ctx context.Context) (more bool, err error) {
	if !r.o.Follow {
		return false, nil
	}
	if replaced, err := r.replaced(); replaced || err != nil {
		return replaced, err
	}
	if r.pending {
		return false, nil
	}
	if r.o.Ended != nil && r.o.Ended() {
		r.pending = true
		return true, nil
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-time.After(pollInterval):
		return true, nil
	}
}

// replaced moves on to the next file, if there is one and the present one has
// been read to its end: the writer may have added to it after our last read.
func (r *follower) replaced() (bool, error) {
	now, err := os.Stat(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // between rename and reopen
	}
	if err != nil {
		return false, err
	}
	old, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	if os.SameFile(now, old) {
		if old.Size() >= r.at {
			return false, nil
		}
		r.buf, r.at = r.buf[:0], 0 // truncated in place
		_, err := r.file.Seek(0, io.SeekStart)
		return err == nil, err
	}
	if old.Size() > r.at {
		return true, nil
	}
	next, err := os.Open(r.path)
	if err != nil {
		return false, err
	}
	_ = r.file.Close() // it was read
	r.file, r.buf, r.at = next, r.buf[:0], 0
	return true, nil
}
