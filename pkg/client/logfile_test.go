package client

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func logLine(text string) string { return "2026-01-02T15:04:05Z stdout " + text + "\n" }

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestRotationLosesNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	write(t, path, logLine("F one"))
	l, err := openLog(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var out bytes.Buffer
	w := newLogWriter(LogOptions{}, &out, &out)
	step := func(want string) {
		t.Helper()
		if err := w.copy(l); err != nil || out.String() != want {
			t.Errorf("got %q, %v, want %q", out.String(), err, want)
		}
	}
	step("one\n")
	write(t, path, logLine("F two")+"2026-01-02T15:04:05Z std")
	step("one\ntwo\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	step("one\ntwo\n") // nothing has the name now
	write(t, path+".1", "out F three\n")
	write(t, path, logLine("P fo")+logLine("F ur"))
	step("one\ntwo\nthree\nfour\n")
	write(t, path, "not a record\n"+logLine("F five"))
	step("one\ntwo\nthree\nfour\nfive\n")
}

func TestTailCountsLinesNotRecords(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	var all strings.Builder
	for i := range 50 { // more than a block
		fmt.Fprintf(&all, "%s%s", logLine("P "+long), logLine(fmt.Sprintf("F line %d", i)))
	}
	path := filepath.Join(t.TempDir(), "c.log")
	write(t, path, all.String())
	for _, tc := range []struct {
		tail, lines int
	}{{-1, 50}, {0, 0}, {1, 1}, {7, 7}, {49, 49}, {50, 50}, {51, 50}} {
		l, err := openLog(path, tc.tail)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := newLogWriter(LogOptions{}, &out, &out).copy(l); err != nil {
			t.Fatal(err)
		}
		l.close()
		if n := strings.Count(out.String(), "\n"); n != tc.lines {
			t.Errorf("tail %d: %d lines", tc.tail, n)
		}
		if tc.lines > 0 && (!strings.HasPrefix(out.String(), long) || !strings.HasSuffix(out.String(), "line 49\n")) {
			t.Errorf("tail %d does not begin with a line or lacks the last", tc.tail)
		}
	}
}

func TestLogIsNotReadThroughALink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), "x")
	if err := os.Symlink("secret", filepath.Join(dir, "c.log")); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(filepath.Join(dir, "c.log"), -1); err == nil {
		t.Error("the link was followed")
	}
}

func TestSinceLeavesOutOlderLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	write(t, path, "2026-01-02T15:04:05Z stdout F old\n2026-01-02T15:04:06Z stdout F new\n")
	l, err := openLog(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var out bytes.Buffer
	since := time.Date(2026, 1, 2, 15, 4, 6, 0, time.UTC)
	if err := newLogWriter(LogOptions{Since: since, Timestamps: true}, &out, &out).copy(l); err != nil || out.String() != "2026-01-02T15:04:06.000000000Z new\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func FuzzTailOffset(f *testing.F) {
	f.Add(logLine("F a")+logLine("P b")+logLine("F c"), 1)
	f.Add("\n\n\n", 2)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 0 {
			return
		}
		at, err := tailOffset(strings.NewReader(s), int64(len(s)), n)
		if err != nil || at < 0 || at > int64(len(s)) || (at > 0 && at < int64(len(s)) && s[at-1] != '\n') {
			t.Errorf("%q, %d: %d, %v", s, n, at, err)
		}
	})
}
