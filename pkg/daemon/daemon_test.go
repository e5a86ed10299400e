package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/errs"
)

// testConfig keeps a daemon to directories of the test.
func testConfig(t *testing.T) config.Config {
	t.Helper()
	c, dir := config.Default(), t.TempDir()
	c.Root, c.State = filepath.Join(dir, "data"), filepath.Join(dir, "run")
	c.Network.ConfDir, c.Network.NetNSDir = filepath.Join(dir, "cni"), filepath.Join(dir, "netns")
	c.Image.CertsDirs, c.Image.RegistriesConf = []string{filepath.Join(dir, "certs.d")}, []string{filepath.Join(dir, "registries.conf")}
	c.NRI.SocketPath, c.NRI.PluginPath, c.NRI.PluginConfigPath = filepath.Join(dir, "nri.sock"), filepath.Join(dir, "nri"), filepath.Join(dir, "nri")
	return c
}

// run runs a daemon until the returned function is called, which returns what
// Run does.
func run(t *testing.T, o Options) (runtimeapi.RuntimeServiceClient, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	end := func() error {
		cancel()
		select {
		case err := <-done:
			done <- err // for the next call
			return err
		case <-time.After(2 * closeTimeout):
			return errs.Timeout
		}
	}
	t.Cleanup(func() { _ = end() }) // tested where it matters
	awaitSocket(t, o.Config.Socket(), done)
	conn, err := grpc.NewClient("unix://"+o.Config.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn), end
}

func awaitSocket(t *testing.T, path string, ended <-chan error) {
	t.Helper()
	tick, deadline := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("the daemon ended: %v", err)
		case <-deadline:
			t.Fatalf("the daemon does not answer: %v", err)
		}
	}
}

func TestADaemonAloneServesAndSaysWhatIsMissing(t *testing.T) {
	c := testConfig(t)
	client, end := run(t, Options{Config: c, Version: "v1.2.3"})
	resp, err := client.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"berth-runtime does not answer", c.Network.ConfDir} {
		if condition := resp.Status.Conditions[i]; condition.Status || !strings.Contains(condition.Message, want) {
			t.Errorf("condition %v", condition)
		}
	}
	if len(resp.RuntimeHandlers) != 2 || resp.RuntimeHandlers[0].Name != "" || resp.RuntimeHandlers[1].Name != "berth" {
		t.Errorf("handlers %v", resp.RuntimeHandlers)
	}
	for _, key := range []string{"config", "host", "cni", "runtime"} {
		if resp.Info[key] == "" {
			t.Errorf("info without %s", key)
		}
	}
	if info, err := os.Stat(c.Socket()); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if err := end(); err != nil {
		t.Errorf("ended with %v", err)
	}
	_, again := run(t, Options{Config: c}) // over the socket that was left
	if err := again(); err != nil {
		t.Error(err)
	}
}

func TestBadFilesAboutRegistriesKeepNoDaemonFromStarting(t *testing.T) {
	c := testConfig(t)
	dir := filepath.Join(c.Image.CertsDirs[0], "registry.example")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "hosts.toml"), c.Image.RegistriesConf[0]} {
		if err := os.WriteFile(path, []byte("[bad"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, end := run(t, Options{Config: c})
	if err := end(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestTwoDaemonsDoNotShareADirectory(t *testing.T) {
	first := testConfig(t)
	run(t, Options{Config: first})
	sameState, sameRoot, sameSocket := testConfig(t), testConfig(t), testConfig(t)
	sameState.State, sameRoot.Root, sameSocket.Listen = first.State, first.Root, first.Socket()
	for name, c := range map[string]config.Config{"state": sameState, "root": sameRoot, "socket": sameSocket} {
		if err := Run(t.Context(), Options{Config: c}); !errors.Is(err, errs.Conflict) {
			t.Errorf("the same %s: %v", name, err)
		}
	}
}

func TestHangupReloadsTheLogLevel(t *testing.T) {
	c := testConfig(t)
	loaded := make(chan struct{})
	run(t, Options{Config: c, Load: func() (config.Config, error) {
		defer close(loaded)
		return c, nil
	}})
	if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-loaded:
	case <-time.After(10 * time.Second):
		t.Error("the configuration is not read again")
	}
}

func TestADirectoryBecomesOpenEnoughAndNeverLessSo(t *testing.T) {
	for before, want := range map[os.FileMode]os.FileMode{0o700: 0o711, 0o755: 0o755, os.ModeSticky | 0o777: os.ModeSticky | 0o777} {
		dir := t.TempDir()
		if err := os.Chmod(dir, before); err != nil {
			t.Fatal(err)
		}
		f, err := lockDirectory(dir, 0o711)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(dir); info.Mode() != os.ModeDir|want {
			t.Errorf("%s became %s", before, info.Mode())
		}
		if _, err := lockDirectory(dir, 0o711); !errors.Is(err, errs.Conflict) {
			t.Errorf("locked twice: %v", err)
		}
		f.Close()
	}
}

// What others can pass leads to programs of containers that are setuid
// (CVE-2021-41103, CVE-2024-25621).
func TestTheHostsUsersPassNowhereButToUserNamespaces(t *testing.T) {
	c := testConfig(t)
	_, end := run(t, Options{Config: c})
	if err := end(); err != nil {
		t.Fatal(err)
	}
	passable := map[string]bool{c.State: true, filepath.Join(c.State, "rootfs"): true}
	for _, dir := range []string{c.Root, c.State} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 3 {
			t.Fatalf("%s: %v, %v", dir, entries, err)
		}
		paths := []string{dir}
		for _, e := range entries {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
		for _, path := range paths {
			want := os.FileMode(0)
			if passable[path] {
				want = 0o011
			}
			if info, err := os.Lstat(path); err != nil || info.Mode().Perm()&0o077 != want {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
}

func TestListenTakesOnlyWhatIsLeftOver(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(file); !errors.Is(err, errs.Conflict) {
		t.Errorf("a file: %v", err)
	}
	path := filepath.Join(dir, "sub", "s")
	for range 2 { // the second finds what the first left
		l, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := listen(path); !errors.Is(err, errs.Conflict) {
			t.Errorf("one that is served: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("it answers although it is closed")
	}
}

func TestWhatHangsDoesNotKeepTheDaemon(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	begin := time.Now()
	within(10*time.Millisecond, func() { <-never })
	if took := time.Since(begin); took < 10*time.Millisecond || took > 5*time.Second {
		t.Errorf("waited %s", took)
	}
}
