package crilog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 5, time.FixedZone("", 3600))

const at = "2026-01-02T11:00:00.000000005Z stdout "

func TestAppendSplitsIntoRecords(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, c := range []struct {
		name, in string
		flush    bool
		out      string
		used     int
	}{
		{"lines", "a\n\nb\n", false, at + "F a\n" + at + "F \n" + at + "F b\n", 5},
		{"unfinished line stays", "a\nb", false, at + "F a\n", 2},
		{"unfinished line is flushed", "a\nb", true, at + "F a\n" + at + "P b\n", 3},
		{"line of the maximum", long + "\n", false, at + "F " + long + "\n", MaxLine + 1},
		{"longer line", long + "y\n", false, at + "P " + long + "\n" + at + "F y\n", MaxLine + 2},
		{"unfinished line of the maximum", long, false, at + "P " + long + "\n", MaxLine},
		{"nothing", "", true, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewStamp(noon, Stdout)
			out, used := s.Append(make([]byte, 0, 64<<10), []byte(c.in), c.flush)
			if diff := cmp.Diff(c.out, string(out)); diff != "" || used != c.used {
				t.Errorf("used %d, want %d; %s", used, c.used, diff)
			}
		})
	}
}

func TestAppendStopsAtTheCapacityAndNeverAllocates(t *testing.T) {
	data := bytes.Repeat([]byte("line\n"), 1000)
	dst := make([]byte, 0, 1000)
	s := NewStamp(noon, Stderr)
	var used int
	if n := testing.AllocsPerRun(10, func() { _, used = s.Append(dst, data, false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	out, again := s.Append(dst, data[:used], false)
	if again != used || used == 0 || used == len(data) || len(out) > cap(dst) {
		t.Errorf("used %d, again %d, %d bytes", used, again, len(out))
	}
}

func FuzzAppendThenParse(f *testing.F) {
	f.Add([]byte("a\nb"), true)
	f.Add(bytes.Repeat([]byte("z"), 3*MaxLine), false)
	f.Fuzz(func(t *testing.T, data []byte, flush bool) {
		s := NewStamp(noon, Stdout)
		out, used := s.Append(make([]byte, 0, 4096), data, flush)
		var back []byte
		for line := range bytes.Lines(out) {
			r, err := Parse(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if back = append(back, r.Text...); !r.Partial {
				back = append(back, '\n')
			}
		}
		if !bytes.Equal(back, data[:used]) {
			t.Errorf("%q came back as %q", data[:used], back)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(at + "F text\n"))
	f.Add([]byte(at + "P:x text"))
	f.Add([]byte("2026-01-02T11:00:00Z stderr F "))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := Parse(line); err == nil && len(r.Text) > len(line) {
			t.Errorf("%q", r.Text)
		}
	})
}

func TestParseRefusesOtherLines(t *testing.T) {
	for _, line := range []string{"", "x", "now stdout F a", at + "Q a", "2026-01-02T11:00:00Z stdlog F a", "2026-01-02T11:00:00Z stdout F"} {
		if r, err := Parse([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, r)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	data := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 10000)
	dst := make([]byte, 0, 3<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		s := NewStamp(noon, Stdout)
		s.Append(dst, data, false)
	}
}
