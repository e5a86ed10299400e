package client

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/crilog"
)

func TestPartsOfALineHaveOneTimestamp(t *testing.T) {
	var out, errOut bytes.Buffer
	w := newLogWriter(true, &out, &errOut)
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for _, r := range []crilog.Record{
		{Time: at, Stream: crilog.Stdout, Partial: true, Text: []byte("fo")},
		{Time: at, Stream: crilog.Stderr, Text: []byte("between")},
		{Time: at, Stream: crilog.Stdout, Text: []byte("ur")},
	} {
		if err := w.write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil || out.String() != "2026-01-02T15:04:05.000000000Z four\n" || errOut.String() != "2026-01-02T15:04:05.000000000Z between\n" {
		t.Errorf("got %q, %q, %v", out.String(), errOut.String(), err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestFirstErrorOfAnOutputIsKept(t *testing.T) {
	w := newLogWriter(false, broken{}, &bytes.Buffer{})
	if err := w.write(crilog.Record{Stream: crilog.Stdout, Text: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if first, second := w.flush(), w.flush(); first == nil || second == nil {
		t.Errorf("got %v, then %v", first, second)
	}
}
