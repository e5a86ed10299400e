package crilog

import (
	"bytes"
	"time"
)

// MaxLine is the largest text in one record; longer lines are split.
const MaxLine = 16 << 10

// Stream names where a record came from.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// layout is RFC3339Nano with all nine digits, so that records align and sort.
const layout = "2006-01-02T15:04:05.000000000Z07:00"

// Stamp is the time and stream of a batch of records, formatted once.
type Stamp struct {
	prefix [64]byte
	size   int
}

// NewStamp formats t, in UTC, and the stream.
func NewStamp(t time.Time, s Stream) Stamp {
	var st Stamp
	b := t.UTC().AppendFormat(st.prefix[:0], layout)
	b = append(b, ' ')
	b = append(b, s...)
	b = append(b, ' ')
	st.size = len(b)
	return st
}

// overhead is the tag, two spaces and the newline around a record's text.
const overhead = 4

// Append formats the lines in data as records at the end of dst, as far as
// cap(dst) allows and at least one, and returns dst and how much of data it
// used. An unfinished last line is left, so that its end can join it, unless
// flush is set or it has reached MaxLine.
//
// The outcome depends on the arguments alone: appending the used part again,
// with an equal flush and room, gives the same bytes.
func (s *Stamp) Append(dst, data []byte, flush bool) (out []byte, used int) {
	prefix := s.prefix[:s.size]
	for used < len(data) {
		text, tag, skip := next(data[used:], flush)
		if skip == 0 {
			break
		}
		if len(dst)+len(prefix)+len(text)+overhead > cap(dst) && used > 0 {
			break
		}
		dst = append(dst, prefix...)
		dst = append(dst, tag, ' ')
		dst = append(dst, text...)
		dst = append(dst, '\n')
		used += skip
	}
	return dst, used
}

// next returns the text and the tag of the first record in data, and how many
// bytes it takes; none where the line has no end yet.
func next(data []byte, flush bool) (text []byte, tag byte, skip int) {
	window := data[:min(len(data), MaxLine+1)]
	if i := bytes.IndexByte(window, '\n'); i >= 0 {
		return data[:i], 'F', i + 1
	}
	if len(data) >= MaxLine {
		return data[:MaxLine], 'P', MaxLine
	}
	if flush {
		return data, 'P', len(data)
	}
	return nil, 0, 0
}
