package crilog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// logOf returns a log whose records are these, each with its number of seconds.
func logOf(from int, texts ...string) string {
	var b strings.Builder
	for i, text := range texts {
		tag := "F"
		if strings.HasSuffix(text, "~") {
			tag = "P"
		}
		fmt.Fprintf(&b, "2026-01-02T00:00:%02dZ stdout %s %s\n", from+i, tag, text)
	}
	return b.String()
}

func write(t *testing.T, path, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestReadSelectsRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, logOf(0, "a", "b1~", "b2", "c")+"garbage\n"+strings.Repeat("x", 100<<10)+"\n"+logOf(5, "d", "e"))
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"all", Options{}, "a b1~ b2 c d e"},
		{"tail", Options{Tail: 2}, "d e"},
		{"tail of a long line", Options{Tail: 4}, "b1~ b2 c d e"},
		{"tail beyond the beginning", Options{Tail: 50}, "a b1~ b2 c d e"},
		{"since", Options{Since: time.Date(2026, 1, 2, 0, 0, 3, 0, time.UTC)}, "c d e"},
		{"no history", Options{NoHistory: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			err := Read(t.Context(), path, c.o, func(r Record) error { got = append(got, string(r.Text)); return nil })
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
}

func TestFollowCrossesRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, logOf(0, "a"))
	records := make(chan string)
	ended := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		ended <- Read(t.Context(), path, Options{Follow: true, Ended: func() bool {
			select {
			case <-stop:
				return true
			default:
				return false
			}
		}}, func(r Record) error { records <- string(r.Text); return nil })
	}()
	want := func(text string) {
		t.Helper()
		if got := <-records; got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	want("a")
	write(t, path, logOf(1, "b"))
	want("b")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, path+".1", logOf(2, "late"))
	want("late")
	write(t, path, logOf(3, "new"))
	want("new")
	write(t, path, "2026-01-02T00:00:09Z stdout F half")
	write(t, path, " done\n")
	want("half done")
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, path, Options{Follow: true}, func(Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
