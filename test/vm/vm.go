// Package vm boots virtual machines for tests of what only a whole machine has:
// power cuts, another kernel, systemd as PID 1, cgroup v2.
//
// A Machine is a QEMU that emulates its processors, since the machines that tests
// run on seldom have KVM, and so is about ten times slower than they are. Its root
// file system is Debian's, see Root, and its changes are forgotten; what tests
// bring (programs, images) lies on a second disk below /tools; what is to last, on
// Disks. The host is 10.0.2.2 from inside. Run speaks to an agent over a serial
// port.
//
// It needs root, and what contrib/setup.sh vm installs: run make vm.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/berth-run/berth/test/vm/wire"
)

// Options describe a machine. Root must be set.
type Options struct {
	Root  Files
	Tools string  // image of the disk for /tools, see MakeTools
	Disks []*Disk // /dev/vdc and on
	// Systemd boots systemd. Else PID 1 is a script that makes what Berth needs.
	Systemd bool
	// Memory is in MiB; default 1024.
	Memory int
	// Kernel has more words for the kernel's command line.
	Kernel string
}

// Machine is one that runs.
type Machine struct {
	dir     string // sockets and console
	qemu    *exec.Cmd
	ended   chan struct{} // closed when QEMU has
	port    net.Conn
	replies *bufio.Scanner
	servers sync.WaitGroup

	mu   sync.Mutex // one command at a time
	last int
}

// Boot starts a machine and returns once it takes commands, or with what its
// console said last.
func Boot(ctx context.Context, o Options) (*Machine, error) {
	dir, err := os.MkdirTemp("/tmp", "bvm")
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, ended: make(chan struct{})}
	if err := m.start(ctx, o); err != nil {
		err = fmt.Errorf("boot: %w\n%s", err, tail(m.Console(), 20))
		m.Kill()
		return nil, err
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, o Options) error {
	control, err := net.Listen("unix", filepath.Join(m.dir, "agent"))
	if err != nil {
		close(m.ended)
		return err
	}
	defer control.Close()
	args, err := m.arguments(o)
	if err != nil {
		close(m.ended)
		return err
	}
	m.qemu = exec.Command("qemu-system-x86_64", args...)
	var said bytes.Buffer
	m.qemu.Stdout, m.qemu.Stderr = &said, &said
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.qemu.Start(); err != nil {
		close(m.ended)
		return err
	}
	go func() { // ends with QEMU, which Kill sees to
		_ = m.qemu.Wait() // it is killed as a rule
		close(m.ended)
		control.Close()
	}()
	stop := context.AfterFunc(ctx, func() { control.Close() })
	defer stop()
	if m.port, err = control.Accept(); err != nil {
		return errors.Join(err, ctx.Err(), errors.New(said.String()))
	}
	m.replies = bufio.NewScanner(m.port)
	m.replies.Buffer(nil, wire.MaxLine)
	if _, err = m.reply(ctx, 0); err != nil {
		return errors.Join(err, errors.New(said.String()))
	}
	return nil
}

// arguments are QEMU's. Each Disk gets a server for this machine.
func (m *Machine) arguments(o Options) ([]string, error) {
	memory := o.Memory
	if memory == 0 {
		memory = 1024
	}
	boot := "root=/dev/vda rw quiet console=ttyS0 net.ifnames=0 panic=-1 random.trust_cpu=on " + o.Kernel
	if !o.Systemd {
		boot += " init=/usr/local/sbin/vm-init"
	}
	args := []string{
		// One thread emulates both processors, in turn. Where each has its own, one may
		// run an instruction that the other has just replaced (QEMU 7.2), and dies of
		// "Oops: int3" when the kernel switches static keys: at boot, for the first quota.
		"-accel", "tcg,thread=single", "-smp", "2", "-cpu", "max", "-m", fmt.Sprint(memory), "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", o.Root.Kernel, "-initrd", o.Root.Initrd, "-append", boot,
		"-serial", "file:" + filepath.Join(m.dir, "console"),
		"-chardev", "socket,id=agent,path=" + filepath.Join(m.dir, "agent"), "-serial", "chardev:agent",
		"-nic", "user,model=virtio-net-pci", "-device", "virtio-rng-pci",
	}
	args = append(args, drive("root", "cache=unsafe,snapshot=on,file="+o.Root.Disk)...)
	if o.Tools != "" {
		args = append(args, drive("tools", "readonly=on,file="+o.Tools)...)
	}
	for n, d := range o.Disks {
		id := fmt.Sprintf("disk%d", n)
		path := filepath.Join(m.dir, id)
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		m.servers.Go(func() {
			defer l.Close()
			stop := make(chan struct{})
			defer close(stop)
			go func() { // a QEMU that never comes is not waited for
				select {
				case <-m.ended:
					l.Close()
				case <-stop:
				}
			}()
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_ = d.serve(c) // it ends in the middle where the machine is killed
		})
		args = append(args, drive(id, "cache=writeback,file.driver=nbd,file.server.type=unix,file.server.path="+path)...)
	}
	return args, nil
}

// drive has QEMU add a disk, after those that are there.
func drive(id, options string) []string {
	return []string{
		"-drive", "if=none,format=raw,id=" + id + "," + options,
		"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,physical_block_size=%d", id, physical),
	}
}

// Run runs a shell script inside, as root, and returns what it printed. The error
// is of its exit, or of the machine. One runs at a time.
func (m *Machine) Run(ctx context.Context, script string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	data, err := json.Marshal(wire.Command{ID: m.last, Script: script})
	if err != nil {
		return "", err
	}
	if _, err := m.port.Write(append(data, '\n')); err != nil {
		return "", fmt.Errorf("machine: %w", err)
	}
	r, err := m.reply(ctx, m.last)
	if err == nil && r.Error != "" {
		err = fmt.Errorf("%s: %s\n%s", strings.TrimSpace(script), r.Error, r.Output)
	}
	return string(r.Output), err
}

// reply waits for the reply to a command. What is left of an earlier command that
// nobody waited for is passed over.
func (m *Machine) reply(ctx context.Context, id int) (wire.Reply, error) {
	stop := context.AfterFunc(ctx, func() { m.port.Close() })
	defer stop()
	for m.replies.Scan() {
		var r wire.Reply
		if err := json.Unmarshal(m.replies.Bytes(), &r); err != nil {
			continue // noise of the port before the agent has it
		}
		if r.ID == id {
			return r, nil
		}
	}
	return wire.Reply{}, errors.Join(errors.New("the machine does not answer"), m.replies.Err(), ctx.Err())
}

// Console returns what the machine has printed on its console.
func (m *Machine) Console() []byte {
	data, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return data
}

// Kill ends the machine at once, as a power cut does: no process inside sees it
// come. Its disks can be used again when it returns. Killing a dead one is none.
func (m *Machine) Kill() {
	if m.qemu != nil && m.qemu.Process != nil {
		_ = m.qemu.Process.Kill() // it may have ended
	}
	<-m.ended
	if m.port != nil {
		m.port.Close()
	}
	m.servers.Wait()
	os.RemoveAll(m.dir)
}

// MakeTools makes the disk for /tools: the agent, and the files that bring names.
// Their names there are the keys.
func MakeTools(ctx context.Context, path string, bring map[string]string) error {
	tree, err := os.MkdirTemp(filepath.Dir(path), "tools")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(tree, "agent"), "github.com/berth-run/berth/test/vm/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build agent: %w\n%s", err, out)
	}
	for name, from := range bring {
		to := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), command(ctx, "cp", from, to)); err != nil {
			return err
		}
	}
	return MakeDisk(ctx, path, 512<<20, tree)
}
