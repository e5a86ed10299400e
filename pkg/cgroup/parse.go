package cgroup

import (
	"bytes"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
)

// number reads a file with one number.
func (r *Reader) number(dir, name string) (uint64, bool) {
	return number(bytes.TrimSpace(r.file(dir, name)))
}

func (r *Reader) keptNumber(g *Group, f file) (uint64, bool) {
	return number(bytes.TrimSpace(r.kept(g, f)))
}

func (r *Reader) keptLimit(g *Group, f file) uint64 {
	if n, ok := r.keptNumber(g, f); ok {
		return n
	}
	return Unlimited
}

// limit reads a file with a number or the word "max".
func (r *Reader) limit(dir, name string) uint64 {
	if n, ok := r.number(dir, name); ok {
		return n
	}
	return Unlimited
}

// pressure reads a file such as
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=12
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=3
//
// and is nil where the kernel does not count it. The kernel's totals are in
// microseconds.
func (r *Reader) pressure(g *Group, f file) *Pressure {
	data := r.kept(g, f)
	if len(data) == 0 {
		return nil
	}
	var p Pressure
	for line := range lines(data) {
		kind, rest := cut(line, ' ')
		stall := &p.Some
		if string(kind) == "full" {
			stall = &p.Full
		}
		for len(rest) > 0 {
			var field []byte
			field, rest = cut(rest, ' ')
			key, text := cut(field, '=')
			switch string(key) {
			case "avg10":
				stall.Avg10 = percent(text)
			case "avg60":
				stall.Avg60 = percent(text)
			case "avg300":
				stall.Avg300 = percent(text)
			case "total":
				n, _ := number(text)
				stall.Total = n * microsecond
			}
		}
	}
	return &p
}

func percent(text []byte) float64 {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0
	}
	return f
}

// pageSizes returns the sizes of huge pages that have a file in dir.
func (r *Reader) pageSizes(dir, prefix, suffix string) []string {
	if dir == "" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1) // what came before an error is good
	var sizes []string
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, prefix)
		size, whole := strings.CutSuffix(rest, suffix)
		if ok && whole && !strings.Contains(size, ".") { // not hugetlb.2MB.rsvd.current
			sizes = append(sizes, size)
		}
	}
	slices.Sort(sizes)
	return sizes
}

// lines yields what ends with a newline, or with the data.
func lines(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			var line []byte
			line, data = cut(data, '\n')
			if len(line) > 0 && !yield(line) {
				return
			}
		}
	}
}

// pairs yields the lines "key number".
func pairs(data []byte) iter.Seq2[[]byte, uint64] {
	return func(yield func([]byte, uint64) bool) {
		for line := range lines(data) {
			key, text := cut(line, ' ')
			if n, ok := number(text); ok && !yield(key, n) {
				return
			}
		}
	}
}

func cut(data []byte, sep byte) (before, after []byte) {
	if i := bytes.IndexByte(data, sep); i >= 0 {
		return data[:i], data[i+1:]
	}
	return data, nil
}

// device reads "8:0".
func device(name []byte) (Device, bool) {
	major, minor := cut(name, ':')
	a, okA := number(major)
	b, okB := number(minor)
	return Device{Major: a, Minor: b}, okA && okB
}

// number reads a decimal number that fits.
func number(text []byte) (uint64, bool) {
	var n uint64
	for _, c := range text {
		if c < '0' || c > '9' || n > (^uint64(0)-uint64(c-'0'))/10 {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, len(text) > 0
}
