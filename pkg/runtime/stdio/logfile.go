package stdio

import (
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// logFile is a container's log. The pump alone writes to it.
type logFile struct {
	path    string
	fd      int
	dropped int64 // bytes of output that could not be written
}

// openLog opens or creates the log at path for appending.
func openLog(path string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Open(path, flags, 0o640)
	if err != nil {
		return -1, fmt.Errorf("open log %s: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errs.Invalid
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was written
		return -1, fmt.Errorf("log %s is not a regular file: %w", path, err)
	}
	return fd, nil
}

// position returns which file the log is now and where its next record goes.
func (l *logFile) position() (inode uint64, offset int64) {
	var st unix.Stat_t
	if err := unix.Fstat(l.fd, &st); err != nil {
		return 0, 0
	}
	return st.Ino, st.Size
}

// write appends b. What cannot be written is dropped, so that a full disk does
// not stop the container; a torn record is cut off at offset.
func (l *logFile) write(b []byte, offset int64) {
	for rest := b; len(rest) > 0; {
		n, err := unix.Write(l.fd, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if l.dropped == 0 {
				slog.Error("container log cannot be written, output is dropped", "path", l.path, "err", err)
			}
			l.dropped += int64(len(b))
			_ = unix.Ftruncate(l.fd, offset) // best effort: a torn record is ugly, not wrong
			return
		}
		rest = rest[n:]
	}
	if l.dropped > 0 {
		slog.Info("container log can be written again", "path", l.path, "droppedBytes", l.dropped)
		l.dropped = 0
	}
}

// swap switches to the file behind fd, which it takes over, and returns the old
// one.
func (l *logFile) swap(fd int) (old int) {
	old, l.fd = l.fd, fd
	return old
}
