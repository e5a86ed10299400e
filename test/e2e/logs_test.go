package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// logLine is a line of a log as CRI has it.
type logLine struct {
	at          time.Time
	stream, tag string
	text        []byte
}

func (c *ctr) log() []logLine {
	c.t.Helper()
	data, err := os.ReadFile(c.status().LogPath)
	if err != nil {
		c.t.Fatal(err)
	}
	return parseLog(c.t, data)
}

func parseLog(t *testing.T, data []byte) []logLine {
	t.Helper()
	var out []logLine
	for line := range bytes.Lines(data) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
		if len(f) != 4 || !bytes.HasSuffix(line, []byte("\n")) {
			t.Fatalf("log line %q", line)
		}
		at, err := time.Parse(time.RFC3339Nano, string(f[0]))
		if err != nil || len(f[0]) < len("2006-01-02T15:04:05.999999999Z") {
			t.Fatalf("log line %q: %v", line, err)
		}
		out = append(out, logLine{at, string(f[1]), string(f[2]), f[3]})
	}
	return out
}

func TestALogHasTheFormThatKubeletReads(t *testing.T) {
	c := runPod(t).start(sh("echo one; echo two >&2; printf 'no end'"))
	c.await()
	lines := c.log()
	if len(lines) != 3 {
		t.Fatalf("got %d lines", len(lines))
	}
	found := map[string]string{}
	for _, l := range lines {
		found[string(l.text)] = l.stream + " " + l.tag
		if time.Since(l.at) > time.Minute || time.Since(l.at) < 0 {
			t.Errorf("time %s", l.at)
		}
	}
	// kubelet adds a line break to nothing but F; what ends without one is P.
	if found["one"] != "stdout F" || found["two"] != "stderr F" || found["no end"] != "stdout P" && found["no end"] != "stdout F" {
		t.Errorf("got %v", found)
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	c := runPod(t).start(sh("head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo end"))
	c.await()
	var got []string
	for _, l := range c.log() {
		got = append(got, fmt.Sprintf("%d%.1s%s", len(l.text), l.text, l.tag))
	}
	want := []string{"16384xP", "16384xP", "7232xF", "16384yF", "3eF"}
	also := []string{"16384xP", "16384xP", "7232xF", "16384yP", "0F", "3eF"}
	if text := strings.Join(got, " "); text != strings.Join(want, " ") && text != strings.Join(also, " ") {
		t.Errorf("got %v", got)
	}
}

func TestBytesReachTheLogAsTheyAre(t *testing.T) {
	c := runPod(t).start(sh(`printf '\000\377\376 \033[1m\r\n\303\n'`))
	c.await()
	lines := c.log()
	if len(lines) != 2 || string(lines[0].text) != "\x00\xff\xfe \x1b[1m\r" || string(lines[1].text) != "\xc3" {
		t.Errorf("got %v", lines)
	}
}

func TestMuchOutputIsWhole(t *testing.T) {
	c := runPod(t).start(sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"))
	c.await()
	lines := c.log()
	if len(lines) != 20000 {
		t.Fatalf("got %d lines", len(lines))
	}
	for i, l := range lines {
		if string(l.text) != fmt.Sprintf("line %d", i) || l.tag != "F" {
			t.Fatalf("line %d is %q", i, l.text)
		}
	}
}

// TestRotationLosesNothing has a container that writes as fast as it can, while its
// log is taken away as often as that goes.
func TestRotationLosesNothing(t *testing.T) {
	const lines = 1_000_000
	c := runPod(t).start(sh("seq " + strconv.Itoa(lines)))
	path := c.status().LogPath
	var parts []string
	for ended := false; !ended; {
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			ended = c.status().State == cri.ContainerState_CONTAINER_EXITED
			continue
		}
		part := fmt.Sprintf("%s.%d", path, len(parts))
		if err := os.Rename(path, part); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
		_, err := berth.Runtime.ReopenContainerLog(t.Context(), &cri.ReopenContainerLogRequest{ContainerId: c.id})
		if ended = code(err) == codes.FailedPrecondition; err != nil && !ended {
			t.Fatal(err)
		}
	}
	if len(parts) < 5 {
		t.Errorf("%d parts: too few to tell anything", len(parts))
	}
	if _, err := os.Stat(path); err == nil {
		parts = append(parts, path)
	}
	number := 0
	for _, part := range parts {
		data, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			number++
			if _, text, _ := bytes.Cut(line, []byte(" stdout F ")); string(text) != strconv.Itoa(number)+"\n" {
				t.Fatalf("%s: line %d is %q", part, number, line)
			}
		}
	}
	if number != lines {
		t.Errorf("%d lines in %d parts", number, len(parts))
	}
}

func TestALogThatCannotBeReopenedStays(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	path := c.status().LogPath
	c.stop(0)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	_, err := berth.Runtime.ReopenContainerLog(t.Context(), &cri.ReopenContainerLogRequest{ContainerId: c.id})
	if code(err) != codes.FailedPrecondition {
		t.Errorf("of one that has ended: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the failed call made a log")
	}
	_, err = berth.Runtime.ReopenContainerLog(t.Context(), &cri.ReopenContainerLogRequest{ContainerId: "0123456789"})
	if code(err) != codes.NotFound {
		t.Errorf("of one that is not there: %v", err)
	}
}

func TestLogsAreNotWrittenThroughLinks(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "precious")
	p := runPod(t)
	config := sh("echo overwritten")
	if err := os.Symlink(victim, filepath.Join(p.config.LogDirectory, config.LogPath)); err != nil {
		t.Fatal(err)
	}
	if err := p.createError(config); err == nil {
		t.Error("a link is accepted for a log")
	}
	c := p.start(sh("while :; do echo x; sleep 0.05; done"))
	path := c.status().LogPath
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if _, err := berth.Runtime.ReopenContainerLog(t.Context(), &cri.ReopenContainerLogRequest{ContainerId: c.id}); err == nil {
		t.Error("a link is accepted for a reopened log")
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
	for _, name := range []string{"../up.log", "/abs.log", "a/../../up.log"} {
		config := sh("true")
		config.LogPath = name
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("log path %s: %v", name, err)
		}
	}
}

func TestALogMayLieDeeperOrNowhere(t *testing.T) {
	p := runPod(t)
	config := sh("echo deep")
	config.LogPath = "name/0.log"
	c := p.start(config)
	if out := c.output(); out != "deep" || c.status().LogPath != filepath.Join(p.config.LogDirectory, "name/0.log") {
		t.Errorf("got %q in %s", out, c.status().LogPath)
	}
	config = sh("echo nowhere")
	config.LogPath = ""
	if s := p.start(config).await(); s.ExitCode != 0 || s.LogPath != "" {
		t.Errorf("without a log: %v", s)
	}
}

func TestATerminalsOutputIsLogged(t *testing.T) {
	config := sh("tty; echo out; echo err >&2; echo $TERM")
	config.Tty = true
	config.Stdin = true
	c := runPod(t).start(config)
	c.await()
	var text []string
	for _, l := range c.log() {
		if l.stream != "stdout" {
			t.Errorf("stream %s", l.stream)
		}
		text = append(text, strings.TrimSuffix(string(l.text), "\r"))
	}
	if got := strings.Join(text, " "); got != "/dev/pts/0 out err xterm" && got != "/dev/console out err xterm" {
		t.Errorf("got %q", got)
	}
}

func TestStdinIsEmptyUnlessAskedFor(t *testing.T) {
	p := runPod(t)
	if out := p.start(sh("wc -c")).output(); out != "0" {
		t.Errorf("got %q", out)
	}
	config := sh("echo before; cat; echo after")
	config.Stdin = true
	c := p.start(config)
	eventually(t, func() error { return wantText(c.written(), "before") })
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_RUNNING || strings.Contains(c.written(), "after") {
		t.Errorf("an open stdin ends: %v", s)
	}
}
