package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a runtime that serves CRI at Socket.
type Daemon struct {
	Name, Socket string
	commands     []*exec.Cmd
}

// Starter starts a runtime that has the images.
type Starter func(ctx context.Context, s Settings) (*Daemon, error)

// Starters are the runtimes to measure, the one that is compared with first.
func Starters(only string) []Starter {
	switch only {
	case Berth:
		return []Starter{StartBerth}
	case Containerd:
		return []Starter{StartContainerd}
	default:
		return []Starter{StartContainerd, StartBerth}
	}
}

// Start runs one of the runtime's programs until Stop, with its output in a
// file of dir.
func (d *Daemon) Start(dir string, env []string, program string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(program)+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	d.commands = append(d.commands, c)
	return nil
}

// Stop ends the programs, the last started first; what they leave running
// ends with the PID namespace.
func (d *Daemon) Stop() {
	for _, c := range slices.Backward(d.commands) {
		_ = c.Process.Signal(unix.SIGTERM) // it may be gone
		kill := time.AfterFunc(10*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait() // how it ends does not matter any more
		kill.Stop()
	}
}

// await waits until something answers at the socket; else the error holds the
// last lines of the logs in dir.
func await(ctx context.Context, socket, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing answers at %s\n%s", socket, LastLines(dir))
		case <-tick.C:
		}
	}
}

// LastLines returns the ends of the log files in dir.
func LastLines(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the pattern is well formed
	var b strings.Builder
	for _, f := range files {
		text, _ := os.ReadFile(f) // what cannot be read has no last lines
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "== %s\n%s\n", filepath.Base(f), strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	return b.String()
}

// writeConflist writes the CNI configuration that both runtimes use, apart
// from bridge name and subnet.
func writeConflist(dir, bridge, subnet, data string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	conf := fmt.Sprintf(`{
  "cniVersion": "1.0.0", "name": %q,
  "plugins": [
    {"type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "promiscMode": false,
     "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, bridge, bridge, data, subnet)
	return os.WriteFile(filepath.Join(dir, "10-bench.conflist"), []byte(conf), 0o644)
}
