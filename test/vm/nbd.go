package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// The network block device protocol, as far as QEMU speaks it to a disk that has
// a cache: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
const (
	nbdMagic        = 0x4e42444d41474943
	nbdOptionMagic  = 0x49484156454f5054
	nbdReplyMagic   = 0x0003e889045565a9
	nbdRequestMagic = 0x25609513
	nbdSimpleReply  = 0x67446698

	nbdFixedNewstyle = 1
	nbdNoZeroes      = 2

	nbdOptExportName = 1
	nbdOptAbort      = 2
	nbdOptInfo       = 6
	nbdOptGo         = 7

	nbdRepAck         = 1
	nbdRepInfo        = 3
	nbdRepUnsupported = 1<<31 + 1

	nbdHasFlags  = 1
	nbdSendFlush = 4 // and no FUA: QEMU then flushes

	nbdRead  = 0
	nbdWrite = 1
	nbdClose = 2
	nbdFlush = 3

	maxNBD = 64 << 20
)

// serve answers one machine until it hangs up.
func (d *Disk) serve(c net.Conn) error {
	if err := d.greet(c); err != nil {
		return fmt.Errorf("nbd handshake: %w", err)
	}
	for {
		if d.dead() {
			_, err := io.Copy(io.Discard, c)
			return err
		}
		err := d.request(c)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("nbd request: %w", err)
		}
	}
}

func send(w io.Writer, fields ...any) error {
	var buf []byte
	for _, f := range fields {
		var err error
		if buf, err = binary.Append(buf, binary.BigEndian, f); err != nil {
			return err
		}
	}
	_, err := w.Write(buf)
	return err
}

// greet goes through the options until the machine wants to begin.
func (d *Disk) greet(c net.Conn) error {
	if err := send(c, uint64(nbdMagic), uint64(nbdOptionMagic), uint16(nbdFixedNewstyle|nbdNoZeroes)); err != nil {
		return err
	}
	var flags uint32
	if err := binary.Read(c, binary.BigEndian, &flags); err != nil {
		return err
	}
	for {
		var o struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(c, binary.BigEndian, &o); err != nil {
			return err
		}
		if o.Magic != nbdOptionMagic || o.Length > 64<<10 {
			return errors.New("no option where one was expected")
		}
		if _, err := io.CopyN(io.Discard, c, int64(o.Length)); err != nil {
			return err
		}
		begin, err := d.option(c, o.Option)
		if begin || err != nil {
			return err
		}
	}
}

// option answers one option, and reports whether requests come next.
func (d *Disk) option(c net.Conn, option uint32) (begin bool, err error) {
	const transmission = uint16(nbdHasFlags | nbdSendFlush)
	switch option {
	case nbdOptExportName:
		return true, send(c, uint64(d.size), transmission)
	case nbdOptAbort:
		return false, errors.Join(send(c, uint64(nbdReplyMagic), option, uint32(nbdRepAck), uint32(0)), io.EOF)
	case nbdOptInfo, nbdOptGo:
		err := send(c, uint64(nbdReplyMagic), option, uint32(nbdRepInfo), uint32(12), uint16(0), uint64(d.size), transmission)
		return option == nbdOptGo, errors.Join(err, send(c, uint64(nbdReplyMagic), option, uint32(nbdRepAck), uint32(0)))
	}
	return false, send(c, uint64(nbdReplyMagic), option, uint32(nbdRepUnsupported), uint32(0))
}

// request does one request. They are done in turn, so a flush covers every write
// that was answered before it.
func (d *Disk) request(c net.Conn) error {
	var r struct {
		Magic          uint32
		Flags, Command uint16
		Handle, Offset uint64
		Length         uint32
	}
	if err := binary.Read(c, binary.BigEndian, &r); err != nil {
		return err
	}
	if r.Magic != nbdRequestMagic || r.Length > maxNBD {
		return errors.New("no request where one was expected")
	}
	var data []byte
	var err error
	switch r.Command {
	case nbdRead:
		data = make([]byte, r.Length)
		err = d.read(data, int64(r.Offset))
	case nbdWrite:
		in := make([]byte, r.Length)
		if _, err := io.ReadFull(c, in); err != nil {
			return err // half a write is none
		}
		err = d.write(in, int64(r.Offset))
	case nbdFlush:
		err = d.flush()
	case nbdClose:
		return io.EOF
	default:
		err = fmt.Errorf("command %d", r.Command)
	}
	var errno uint32
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm: disk:", err)
		errno, data = 5, nil // EIO
	}
	if err := send(c, uint32(nbdSimpleReply), errno, r.Handle); err != nil {
		return err
	}
	_, err = c.Write(data)
	return err
}
