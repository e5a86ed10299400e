package stdio

import (
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/crilog"
)

// stream is one output of a container, from a FIFO to the log and the clients.
// The pump's goroutine owns it once it is added.
type stream struct {
	owner *Stdio
	index int // 1 stdout, 2 stderr, as in file descriptors
	fd    int // read end of the FIFO, non-blocking; both ends where tty feeds it
	tty   int // terminal master that feeds the FIFO, or -1

	sent   int  // bytes at the head of the FIFO that clients have had
	big    bool // the FIFO has been grown
	hup    bool // no writer is left
	over   bool // the container has ended
	queued bool // in the pump's ready list
	ended  bool
}

var streamNames = [...]crilog.Stream{1: crilog.Stdout, 2: crilog.Stderr}

// step moves one batch and reports whether more may be there at once.
func (p *Pump) step(s *stream) (more bool) {
	if s.ended {
		return false
	}
	fed, full := false, false
	if s.tty >= 0 {
		fed, full = p.feed(s)
	}
	data, eof := p.peek(s)
	if eof {
		p.end(s)
		return false
	}
	if len(data) == 0 {
		return fed
	}
	s.owner.deliver(s.index, data[min(s.sent, len(data)):])
	used := p.record(s, data, s.hup || full)
	if used == 0 && s.tty < 0 && noRoom(s.fd) {
		// What was written since we looked may be what filled it.
		if again, _ := p.peek(s); len(again) != len(data) {
			s.sent = len(data)
			return true
		}
		used = p.record(s, data, true)
	}
	s.sent = len(data) - used
	if len(data) >= 32<<10 && !s.big {
		grow(s.fd)
		s.big = true
	}
	// All that was there has been seen; what comes later is a new edge.
	return fed || full || s.hup || used > 0 && (used < len(data) || len(data) >= 32<<10)
}

// feed moves a terminal's output into its FIFO, and reports whether the FIFO
// takes no more of what is there. EIO says that nobody has the terminal open,
// which is its end once the container has ended: until then /dev/console may be
// opened again, and what is written there is a new edge.
func (p *Pump) feed(s *stream) (more, full bool) {
	n, err := unix.Splice(s.tty, nil, s.fd, nil, 64<<10, unix.SPLICE_F_NONBLOCK)
	switch {
	case n > 0:
		return true, false
	case errors.Is(err, unix.EINTR):
		return true, false
	case errors.Is(err, unix.EAGAIN):
		// See noRoom.
		return false, ready(s.tty, unix.POLLIN) && !ready(s.fd, unix.POLLOUT)
	}
	s.hup = s.hup || s.over || !errors.Is(err, unix.EIO)
	return false, false
}

// peek returns what lies in the FIFO, without taking it out.
func (p *Pump) peek(s *stream) (data []byte, eof bool) {
	for {
		n, err := unix.Tee(s.fd, p.scratch[1], len(p.in), unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, s.hup // a terminal's FIFO never ends by itself
		case err != nil:
			slog.Error("container output cannot be read", "container", s.owner.cfg.ID, "err", err)
			return nil, true
		case n == 0:
			return nil, true
		}
		return p.in[:readFull(p.scratch[0], p.in[:n])], false
	}
}

// record puts the whole lines of data into the log, with flush an unfinished one
// too, and takes them out of the FIFO; it returns how many bytes those were.
func (p *Pump) record(s *stream, data []byte, flush bool) (used int) {
	log := s.owner.log
	if log == nil {
		p.take(s.fd, len(data))
		return len(data)
	}
	b := batch{id: s.owner.cfg.ID, stream: s.index, at: time.Now(), flush: flush}
	stamp := crilog.NewStamp(b.at, streamNames[s.index])
	out, used := stamp.Append(p.out[:0], data, b.flush)
	if used == 0 {
		return 0
	}
	b.size = used
	b.inode, b.offset = log.position()
	p.slot.begin(&b)
	log.write(out, b.offset)
	p.slot.set(slotTaking)
	p.take(s.fd, used)
	return used
}

// take moves n bytes from the FIFO to the stage, says that the batch is done,
// and empties the stage. How far it came can be read off the stage.
func (p *Pump) take(fd, n int) {
	for n > 0 {
		m, err := unix.Splice(fd, nil, p.stage, nil, n, unix.SPLICE_F_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			break // the FIFO held less: it was emptied by its other owner, the container
		}
		n -= int(m)
	}
	p.slot.set(slotIdle)
	p.emptyStage()
}

func (p *Pump) emptyStage() {
	for left := buffered(p.stage); left > 0; {
		m, err := unix.Splice(p.stage, nil, p.null, nil, left, unix.SPLICE_F_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return
		}
		left -= int(m)
	}
}

// finish completes the batch that a dead pump left in the slot, should it be of
// this stream.
func (p *Pump) finish(s *stream) {
	state := p.slot.state()
	if state == slotIdle {
		return
	}
	b := p.slot.load()
	if b.id != s.owner.cfg.ID || b.stream != s.index {
		return
	}
	if state == slotWriting {
		p.rewrite(s, &b)
		p.slot.set(slotTaking)
	}
	p.take(s.fd, b.size-buffered(p.stage))
}

// rewrite appends the part of b that the log lacks.
func (p *Pump) rewrite(s *stream, b *batch) {
	data, _ := p.peek(s)
	log := s.owner.log
	if log == nil || len(data) < b.size {
		return // the FIFO died with its last holder
	}
	stamp := crilog.NewStamp(b.at, streamNames[b.stream])
	out, _ := stamp.Append(p.out[:0], data[:b.size], b.flush)
	inode, size := log.position()
	done := int64(0)
	if inode == b.inode {
		done = min(max(size-b.offset, 0), int64(len(out)))
	}
	log.write(out[done:], size)
}

// readFull reads from a pipe that holds len(b) bytes.
func readFull(fd int, b []byte) (n int) {
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			break
		}
		n += m
	}
	return n
}
