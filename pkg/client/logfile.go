package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// logPoll is how often a followed log is looked at. Looking works on every
	// file system and costs two system calls.
	logPoll = 20 * time.Millisecond
	// tailBlock is read at once when looking for the last lines.
	tailBlock = 64 << 10
	// maxRecord bounds one record of a log; a longer one is no record.
	maxRecord = 1 << 20
)

// logFile reads whole records of a log that grows and is rotated: after a
// rename the old file is read to its end before the new one.
type logFile struct {
	path string
	file *os.File
	r    *bufio.Reader
	part []byte // of a record that is still being written
}

// openLog opens a log where its last lines begin; a negative tail means all.
func openLog(path string, tail int) (*logFile, error) {
	l := &logFile{path: path}
	if err := l.open(); err != nil {
		return nil, err
	}
	if tail < 0 {
		return l, nil
	}
	info, err := l.file.Stat()
	if err != nil {
		l.close()
		return nil, err
	}
	offset, err := tailOffset(l.file, info.Size(), tail)
	if err == nil {
		_, err = l.file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.r.Reset(l.file)
	return l, nil
}

// open never follows a link: the log's name is the container's.
func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	l.file, l.r = f, bufio.NewReaderSize(f, tailBlock)
	return nil
}

func (l *logFile) close() { _ = l.file.Close() } // it was only read

// next returns one record's line, nil where there is none yet. The line is
// good until the next call.
func (l *logFile) next() ([]byte, error) {
	for {
		line, err := l.r.ReadSlice('\n')
		switch {
		case err == nil && len(l.part) == 0:
			return line, nil
		case err == nil:
			whole := append(l.part, line...)
			l.part = nil
			return whole, nil
		case !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
		if l.part = append(l.part, line...); len(l.part) > maxRecord {
			l.part = l.part[:0]
		}
		if errors.Is(err, io.EOF) {
			if again, err := l.rotate(); !again {
				return nil, err
			}
		}
	}
}

// rotate goes to the file that has the log's name now. It reports whether there
// may be more to read: in the new file, or at the end of the old, which was
// written to until it had its new name.
func (l *logFile) rotate() (bool, error) {
	old, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // between the rename and the reopen
	}
	if err != nil || os.SameFile(old, now) {
		return false, err
	}
	at, err := l.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, err
	}
	if at < old.Size() {
		return true, nil
	}
	l.close()
	return true, l.open()
}

// tailOffset returns where the last n lines of a log of this size begin. A line
// is what ends with a whole record; the parts before belong to it.
func tailOffset(r io.ReaderAt, size int64, n int) (int64, error) {
	buf := make([]byte, tailBlock)
	end := size // of the region not looked at yet; a record ends just before it
	for end > 0 {
		start := max(end-tailBlock, 0)
		block := buf[:end-start]
		if _, err := r.ReadAt(block, start); err != nil {
			return 0, err
		}
		for {
			body := bytes.TrimSuffix(block, []byte{'\n'})
			cut := bytes.LastIndexByte(body, '\n')
			if cut < 0 && start > 0 {
				break // the record begins in an earlier block
			}
			if !isPart(body[cut+1:]) {
				if n == 0 {
					return start + int64(len(block)), nil
				}
				n--
			}
			block = block[:cut+1]
			if len(block) == 0 {
				return 0, nil
			}
		}
		if start+int64(len(block)) == end { // longer than a block: no record
			return end, nil
		}
		end = start + int64(len(block))
	}
	return 0, nil
}

// isPart tells from its tag that a record is not the last of its line.
func isPart(record []byte) bool {
	fields := bytes.SplitN(record, []byte{' '}, 4)
	return len(fields) > 2 && bytes.HasPrefix(fields[2], []byte{'P'})
}
