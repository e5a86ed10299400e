package session

import "os"

// ends are those of a pipe, or none. They may be closed twice: a file's second
// Close is an error and nothing else.
type ends struct{ r, w *os.File }

func (e *ends) open(wanted bool) (err error) {
	if wanted {
		e.r, e.w, err = os.Pipe()
	}
	return err
}

func (e *ends) closeRead()  { closeFile(e.r) }
func (e *ends) closeWrite() { closeFile(e.w) }
func (e *ends) close()      { e.closeRead(); e.closeWrite() }

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close() // write errors came with the writes
	}
}
