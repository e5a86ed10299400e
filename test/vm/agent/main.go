// Agent runs inside a virtual machine of package vm: it reads commands from the
// second serial port and answers with what they printed and how they ended.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/vm/wire"
)

func main() {
	if err := serve("/dev/ttyS1"); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func serve(port string) error {
	tty, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	if err := raw(tty); err != nil {
		return err
	}
	out := json.NewEncoder(tty)
	if err := out.Encode(wire.Reply{}); err != nil { // ready
		return err
	}
	in := bufio.NewScanner(tty)
	in.Buffer(nil, wire.MaxLine)
	for in.Scan() {
		var c wire.Command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			return err
		}
		if err := out.Encode(run(c)); err != nil {
			return err
		}
	}
	return in.Err()
}

// raw takes the terminal's habits from the port: bytes are bytes.
func raw(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t)
}

func run(c wire.Command) wire.Reply {
	cmd := exec.Command("/bin/sh", "-c", c.Script)
	cmd.Env = append(os.Environ(), "HOME=/root", "PATH=/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	r := wire.Reply{ID: c.ID, Output: out}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
