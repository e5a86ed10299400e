package criu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime/libct/criu"
	"github.com/berth-run/berth/test/testutil"
)

func TestWithoutCRIUItSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	err := criu.Check(t.Context())
	if !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "need CRIU 3.16 or newer") {
		t.Errorf("without criu: %v", err)
	}
	for script, want := range map[string]string{
		"echo 'Version: 3.15'": "3.15", "echo hello": "does not tell", "exit 3": "exit status 3",
		"[ $1 = --version ] && echo Version: 3.17.1 && exit; echo a; echo no support; exit 1": "no support",
	} {
		if err := os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := criu.Check(t.Context()); !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\necho Version: 4.0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := criu.Check(t.Context()); err != nil {
		t.Errorf("one that works: %v", err)
	}
}

func TestACallerWhoLeavesDoesNotKillCRIU(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script := "#!/bin/sh\n[ $1 = --version ] && echo Version: 4.0 && exit\necho begun > " + dir + "/fifo\nsleep 0.2\n: > " + dir + "/over\n"
	if err := errors.Join(unix.Mkfifo(dir+"/fifo", 0o600), os.WriteFile(dir+"/criu", []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		_, _ = os.ReadFile(dir + "/fifo") // until it has begun
		leave()
	}()
	if err := criu.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir + "/over"); err != nil {
		t.Errorf("it was killed: %v", err)
	}
}

func TestStreamsOfADumpAreOnlyStreams(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		`{"file[1a:2b]":"stdout","file[1a:3]":"stderr"}`: `["","pipe:1a:2b]","pipe:1a:3]"]`,
		`{}`: `["","",""]`,
		`{"file[1a:2b]":"stdout","file[1a:3]":"stdout"}`: "two mounts",
		`{"file[1a:2b]\naction-script /x":"stdout"}`:     "no stream",
		`{"file[1a:2b]":"extRootNetNS"}`:                 "no stream",
		`{"pipe:[3]":"stdout"}`:                          "no stream",
		`[]`:                                             "cannot unmarshal",
		`{"` + strings.Repeat("x", 64<<10) + `":"y"}`:    "more than",
	} {
		for name, data := range map[string]string{"stdio.json": content, "files.img": "a file[1a:2b] b file[1a:3] c file[1a:4]", "descriptors.json": `["pipe:x"]`} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := criu.Inherit(dir)
		got, _ := os.ReadFile(filepath.Join(dir, "descriptors.json"))
		if err == nil && string(got) != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %q, %v", content, got, err)
		}
		if files, _ := os.ReadFile(filepath.Join(dir, "files.img")); strings.Contains(want, "1a:3") && string(files) != "a pipe:1a:2b] b pipe:1a:3] c file[1a:4]" {
			t.Errorf("files of the dump: %q", files)
		}
	}
}

func TestSettingsAreNeverTheContainersOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "criu.conf")
	labels, err := criu.Configure([]string{"a=b", "org.criu.config=/etc/evil", "org.criu.config="}, path, []string{"external file[1:2]"})
	if err != nil || !slices.Equal(labels, []string{"a=b", "org.criu.config=" + path}) {
		t.Errorf("labels %q, %v", labels, err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(data), "\nexternal file[1:2]\n") {
		t.Errorf("settings %q, %v", data, err)
	}
}

func TestOpenStreamsAreFoundByWhatTheyAre(t *testing.T) {
	dir, fifos := t.TempDir(), map[string]string{}
	for _, name := range []string{"stdout", "stderr"} {
		fifos[name] = filepath.Join(dir, name)
		if err := unix.Mkfifo(fifos[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(fifos["stdout"], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images := filepath.Join(dir, "images")
	lines, err := criu.Streams(images, []int{os.Getpid()}, fifos)
	if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "external file[") {
		t.Fatalf("settings %q, %v", lines, err)
	}
	want := `{"` + strings.TrimPrefix(lines[0], "external ") + `":"stdout"}`
	if data, err := os.ReadFile(filepath.Join(images, "stdio.json")); err != nil || string(data) != want {
		t.Errorf("noted %q, want %q, %v", data, want, err)
	}
}

func TestACRIUOfADeadWorkerIsWaitedFor(t *testing.T) {
	if err := criu.AwaitOrphans(t.Context(), os.Getpid()); err != nil {
		t.Errorf("without any: %v", err)
	}
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.Symlink("/bin/sleep", path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	testutil.Await(t, 10*time.Second, func() error { // exec names the process
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)); err != nil || string(name) != "criu\n" {
			return fmt.Errorf("it is named %q, %w", name, err)
		}
		return nil
	})
	if err := criu.AwaitOrphans(ctx, os.Getpid()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: %v", err)
	}
	if err := errors.Join(cmd.Process.Kill(), criu.AwaitOrphans(t.Context(), os.Getpid())); err != nil {
		t.Errorf("after its end: %v", err)
	}
	_ = cmd.Wait() // it was killed
}

func TestWhatAKilledCRIULeftMountedIsNotRemoved(t *testing.T) {
	testutil.Root(t)
	dir, host := t.TempDir(), t.TempDir()
	for _, path := range []string{filepath.Join(host, "sub"), filepath.Join(dir, ".criu.cgyard.x"), filepath.Join(dir, ".criu.y")} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(host, filepath.Join(dir, ".criu.cgyard.x"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := criu.Tidy(dir); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if _, err := os.Stat(filepath.Join(host, "sub")); err != nil {
		t.Errorf("what was mounted: %v", err)
	}
}
