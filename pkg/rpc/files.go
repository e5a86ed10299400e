package rpc

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// maxFiles bounds the descriptors of one request.
const maxFiles = 8

// writeWithFiles writes frame to c and passes files with its first bytes.
func writeWithFiles(c *net.UnixConn, frame []byte, files []*os.File) error {
	if len(files) == 0 {
		_, err := c.Write(frame)
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn() // Fd would switch the file to blocking mode
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return err
		}
	}
	n, _, err := c.WriteMsgUnix(frame, unix.UnixRights(fds...), nil)
	if err == nil && n < len(frame) {
		_, err = c.Write(frame[n:])
	}
	return err
}

// fileReader reads from a connection and gathers the descriptors that come
// with the data. They are close-on-exec.
type fileReader struct {
	conn  *net.UnixConn
	files []*os.File
	oob   []byte
}

func newFileReader(c *net.UnixConn) (*fileReader, *bufio.Reader) {
	r := &fileReader{conn: c, oob: make([]byte, unix.CmsgSpace(4*maxFiles))}
	return r, bufio.NewReaderSize(r, 32<<10)
}

// Read implements io.Reader.
func (r *fileReader) Read(p []byte) (int, error) {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, r.oob)
	if oobn > 0 {
		if takeErr := r.take(r.oob[:oobn]); err == nil {
			err = takeErr
		}
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("more than %d files: %w", maxFiles, errs.Invalid)
	}
	if err == nil && n == 0 {
		err = errors.New("connection closed")
	}
	return n, err
}

func (r *fileReader) take(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, which nobody asked for
		}
		for _, fd := range fds {
			r.files = append(r.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	if len(r.files) > maxFiles {
		return fmt.Errorf("more than %d files: %w", maxFiles, errs.Invalid)
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written through it
	}
}
