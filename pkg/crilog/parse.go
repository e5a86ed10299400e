package crilog

import (
	"bytes"
	"fmt"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// Record is one line of a log file.
type Record struct {
	Time   time.Time
	Stream Stream
	// Partial tells that the line goes on in the stream's next record.
	Partial bool
	// Text is the record's text without a newline; it shares the memory of
	// what was parsed.
	Text []byte
}

// Parse takes one line of a log file apart, with or without its newline. A
// line that is not a record is errs.Invalid.
func Parse(line []byte) (Record, error) {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	stamp, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 {
		return Record{}, fmt.Errorf("log record has fewer than four fields: %w", errs.Invalid)
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Record{}, fmt.Errorf("log record's time: %w: %w", errs.Invalid, err)
	}
	r := Record{Time: t, Stream: Stream(stream), Text: text}
	if r.Stream != Stdout && r.Stream != Stderr {
		return Record{}, fmt.Errorf("log record of stream %q: %w", stream, errs.Invalid)
	}
	switch tag, _, _ := bytes.Cut(tags, []byte{':'}); string(tag) { // further tags may follow a colon
	case "P":
		r.Partial = true
	case "F":
	default:
		return Record{}, fmt.Errorf("log record tagged %q: %w", tags, errs.Invalid)
	}
	return r, nil
}
