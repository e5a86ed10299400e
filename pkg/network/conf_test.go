package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

const oneBridge = `{"cniVersion":"1.0.0","name":%q,"plugins":[{"type":"bridge"}]}`

// inUse returns the names of the networks in use.
func inUse(s *Service) string {
	var names []string
	for _, n := range s.conf.Load().networks {
		names = append(names, n.list.Name)
	}
	return strings.Join(names, ",")
}

func TestConfigurationIsFollowed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cni", "net.d") // which does not exist yet
	s := open(t, Options{ConfDir: dir, BinDirs: []string{"/nowhere"}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if err := s.Status(t.Context()); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
	ten, twenty, zero := filepath.Join(dir, "10.conflist"), filepath.Join(dir, "20.conflist"), filepath.Join(dir, "00.conflist")
	steps := []struct {
		what string
		do   func()
		want string
	}{
		{"added", func() { writeFile(t, twenty, fmt.Sprintf(oneBridge, "twenty")) }, "twenty"},
		{"an earlier one added", func() { writeFile(t, ten, fmt.Sprintf(oneBridge, "ten")) }, "ten"},
		{"modified", func() { writeFile(t, ten, fmt.Sprintf(oneBridge, "ten-b")) }, "ten-b"},
		{"removed", func() { _ = os.Remove(ten) }, "twenty"},
		{"directory removed", func() { _ = os.RemoveAll(dir) }, ""},
		{"directory made again", func() { writeFile(t, ten, fmt.Sprintf(oneBridge, "ten-c")) }, "ten-c"},
	}
	for _, step := range steps {
		step.do()
		eventually(t, step.what, func() bool { return inUse(s) == step.want })
	}
	writeFile(t, zero, `{"name":`)
	eventually(t, "broken file reported", func() bool { return s.Info()["broken."+zero] != "" })
	writeFile(t, ten, `{"name":"ten-d",`)
	eventually(t, "broken file in use reported", func() bool { return s.Info()["broken."+ten] != "" })
	if inUse(s) != "ten-c" {
		t.Errorf("in use: %q", inUse(s))
	}
}

func TestStatusNamesWhatIsMissing(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	s := open(t, Options{ConfDir: dir, BinDirs: []string{bin}})
	writeFile(t, filepath.Join(dir, "10.conflist"), `{"cniVersion":"9.9","name":"a","plugins":[{}]}`)
	s.reload(t.Context())
	if err := s.Status(t.Context()); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "10.conflist") {
		t.Errorf("broken file: %v", err)
	}
	writeFile(t, filepath.Join(dir, "10.conflist"), `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"mine"}]}`)
	s.reload(t.Context())
	if err := s.Status(t.Context()); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "mine") {
		t.Errorf("missing plugin: %v", err)
	}
	script := filepath.Join(bin, "mine")
	writeFile(t, script, "#!/bin/sh\ncat >/dev/null\necho '{\"code\":50,\"msg\":\"not yet\"}'\nexit 1\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	s.status.forget()
	if err := s.Status(t.Context()); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("STATUS fails: %v", err)
	}
	writeFile(t, script, "#!/bin/sh\ncat >/dev/null\n")
	s.status.forget()
	if err := s.Status(t.Context()); err != nil {
		t.Errorf("STATUS succeeds: %v", err)
	}
}

func TestPluginDirectoryIsInlined(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "10.conflist"), `{"cniVersion":"1.1.0","name":"a"}`)
	writeFile(t, filepath.Join(dir, "a", "1.conf"), `{"type":"one"}`)
	list, err := readConf(filepath.Join(dir, "10.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := (&attachment{Config: list.Bytes}).list()
	if err != nil || len(again.Plugins) != 1 || again.Plugins[0].Network.Type != "one" {
		t.Errorf("got %+v, %v", again, err)
	}
}

func TestSingleConfigurationsAndLoopback(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "00-loopback.conf"), `{"cniVersion":"0.2.0","name":"lo","type":"loopback"}`)
	writeFile(t, filepath.Join(dir, "10.conf"), `{"cniVersion":"0.4.0","name":"single","type":"bridge"}`)
	writeFile(t, filepath.Join(dir, "20.conflist"), fmt.Sprintf(oneBridge, "second"))
	for limit, want := range map[int]string{0: "single", 5: "single,second"} {
		s := open(t, Options{ConfDir: dir, BinDirs: []string{"/nowhere"}, MaxConfNum: limit})
		if got := inUse(s); got != want {
			t.Errorf("limit %d: %q", limit, got)
		}
	}
}

func TestBadRecordIsSetAside(t *testing.T) {
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "network", "p1.json"), `{"version":1,"podID":"other"`)
	writeFile(t, filepath.Join(root, "network", "p2.json"), `{"version":1,"podID":"p1","attachments":[{}]}`)
	s := open(t, Options{Root: root, ConfDir: t.TempDir(), BinDirs: []string{"/nowhere"}})
	problems, err := s.Check(t.Context(), nil, false)
	if err != nil || len(problems) != 2 {
		t.Errorf("got %+v, %v", problems, err)
	}
}

func TestHalfWrittenRecordsAreSwept(t *testing.T) {
	root := t.TempDir()
	half := filepath.Join(root, "network", ".tmp-p1.json-1")
	writeFile(t, half, "{")
	open(t, Options{Root: root, ConfDir: t.TempDir(), BinDirs: []string{"/nowhere"}})
	if _, err := os.Lstat(half); err == nil {
		t.Error("it stays")
	}
}
