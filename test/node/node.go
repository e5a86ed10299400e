// Package node runs a private Berth for tests: a standalone berthd and its
// berth-runtime, as make build made them, on directories of their own. It can
// be killed, restarted and stopped, and tells what it leaves on the machine.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// Node is one private Berth.
type Node struct {
	// Dir holds all that is the node's: Dir/data, Dir/run, Dir/netns, Dir/logs.
	Dir string
	// Runtime and Images speak CRI, over a connection that outlives restarts.
	Runtime cri.RuntimeServiceClient
	Images  cri.ImageServiceClient

	bin    string
	flags  []string
	conn   *grpc.ClientConn
	daemon *exec.Cmd
}

// Options change what New makes.
type Options struct {
	// Config is added to the generated configuration.
	Config string
	// Bridge is the name of the built-in network's bridge: at most 15 bytes.
	// Empty: the daemon is not standalone and finds CNI in Dir/cni.
	Bridge string
	// Subnet6 gives the pods IPv6 addresses too.
	Subnet6 string
}

// New prepares a node in dir, which must be short: sockets lie in it. Start
// starts it.
func New(dir string, o Options) (*Node, error) {
	bin := os.Getenv("BERTH_BIN")
	if bin == "" {
		return nil, errors.New("BERTH_BIN is not set: run make e2e or make crash")
	}
	n := &Node{Dir: dir, bin: bin}
	for _, d := range []string{"netns", "logs", "cni"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf("%s\n[network]\nnetns_dir = %q\nconf_dir = %q\nbin_dirs = [%q]\n",
		o.Config, filepath.Join(dir, "netns"), filepath.Join(dir, "cni"), filepath.Join(bin, "cni"))
	if !strings.Contains(o.Config, "[nri]") { // the machine's socket is not a test's
		config += "[nri]\nenable = \"off\"\n"
	}
	if o.Bridge != "" {
		config += fmt.Sprintf("[network.builtin]\nbridge = %q\nsubnet6 = %q\n", o.Bridge, o.Subnet6)
		n.flags = append(n.flags, "--standalone")
	}
	path := filepath.Join(dir, "berth.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return nil, err
	}
	n.flags = append(n.flags, "--config", path, "--root", filepath.Join(dir, "data"), "--state", n.State())
	var err error
	n.conn, err = grpc.NewClient("unix://"+n.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	n.Runtime, n.Images = cri.NewRuntimeServiceClient(n.conn), cri.NewImageServiceClient(n.conn)
	return n, nil
}

// State is the daemon's state directory.
func (n *Node) State() string { return filepath.Join(n.Dir, "run") }

// Socket is where the daemon listens.
func (n *Node) Socket() string { return filepath.Join(n.State(), "berth.sock") }

// Logs is a directory for the pods' logs.
func (n *Node) Logs() string { return filepath.Join(n.Dir, "logs") }

// Supervisor reaches berth-runtime without the daemon.
func (n *Node) Supervisor() *runtime.Client {
	return runtime.Dial(filepath.Join(n.State(), "runtime.sock"))
}

// DaemonPID is the daemon's process, 0 when it does not run.
func (n *Node) DaemonPID() int {
	if n.daemon == nil {
		return 0
	}
	return n.daemon.Process.Pid
}

// startTimeout bounds how long the daemon may take to answer.
const startTimeout = 20 * time.Second

// Start starts the daemon and returns once it answers.
func (n *Node) Start() error {
	log, err := os.OpenFile(filepath.Join(n.Dir, "berthd.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.daemon = n.Daemon(context.Background())
	n.daemon.Stdout, n.daemon.Stderr = log, log
	n.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.daemon.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(startTimeout))
	defer cancel()
	return Until(ctx, func() error {
		n.conn.ResetConnectBackoff() // or it waits a second for what is there already
		n.conn.Connect()
		_, err := n.Runtime.Version(ctx, &cri.VersionRequest{})
		return err
	})
}

// Daemon prepares the daemon's command, as Start runs it.
func (n *Node) Daemon(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(n.bin, "berthd"), n.flags...)
}

// Kill ends the daemon with SIGKILL.
func (n *Node) Kill() error {
	err := n.daemon.Process.Kill()
	_ = n.daemon.Wait() // says that it was killed
	n.daemon = nil
	return err
}

// StopDaemon ends the daemon as systemd does. Containers run on.
func (n *Node) StopDaemon() error {
	if n.daemon == nil {
		return nil
	}
	if err := n.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := n.daemon.Wait()
	n.daemon = nil
	return err
}

// Close removes all pods, ends both daemons and takes away the network.
func (n *Node) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(time.Minute))
	defer cancel()
	var failed []error
	if n.daemon != nil {
		failed = append(failed, n.removeAll(ctx), n.StopDaemon())
	}
	failed = append(failed, n.conn.Close(), n.stopSupervisor(ctx))
	return errors.Join(failed...)
}

func (n *Node) removeAll(ctx context.Context) error {
	pods, err := n.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if _, err := n.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			return err
		}
	}
	return nil
}

// stopSupervisor ends berth-runtime, which outlives its daemon on purpose.
func (n *Node) stopSupervisor(ctx context.Context) error {
	v, err := n.Supervisor().Version(ctx)
	if err != nil {
		return nil // it does not run
	}
	if err := syscall.Kill(v.AnchorPID, syscall.SIGTERM); err != nil {
		return err
	}
	return Until(ctx, func() error {
		for _, pid := range []int{v.AnchorPID, v.WorkerPID} {
			if Alive(pid) {
				return fmt.Errorf("berth-runtime %d has not ended", pid)
			}
		}
		return nil
	})
}

// Alive tells whether a process runs. One that nobody has reaped yet does not.
func Alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// Berth runs the berth command against the node and returns its output.
func (n *Node) Berth(ctx context.Context, args ...string) (string, error) {
	cmd := n.Command(ctx, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("berth %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// Command prepares the berth command against the node.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, "berth"), args...)
	cmd.Env = append(os.Environ(), "BERTH_HOST=unix://"+n.Socket())
	return cmd
}

// Until calls f every few milliseconds until it succeeds or ctx ends, and then
// returns f's last error.
func Until(ctx context.Context, f func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
