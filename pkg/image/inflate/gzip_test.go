package inflate

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/berth-run/berth/pkg/errs"
)

// decoders are what is compiled in.
var decoders = map[string]func(*input, *State) (decoder, error){"this build's": newGzip, "Go's": newGoGzip}

// opened opens a gzip stream with one of the decoders.
func opened(r io.Reader, open func(*input, *State) (decoder, error)) (*Reader, error) {
	in := newInput(r)
	d, err := open(in, nil)
	return &Reader{in: in, d: d}, err
}

func TestEveryFormOfGzip(t *testing.T) {
	for name, open := range decoders {
		for _, s := range corpus(t) {
			z, err := opened(bytes.NewReader(s.packed), open)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(z)
			if err != nil || !bytes.Equal(got, s.plain) {
				t.Errorf("%s decoder, %s: %d of %d bytes, %v", name, s.name, len(got), len(s.plain), err)
			}
		}
	}
}

func TestSmallReadsOfTheSourceDoNoHarm(t *testing.T) {
	for _, s := range corpus(t) {
		s.packed = s.packed[:min(len(s.packed), 50<<10)]
		want, wantErr := goInflate(s.packed)
		for name, r := range map[string]io.Reader{
			"one byte": iotest.OneByteReader(bytes.NewReader(s.packed)),
			"with EOF": iotest.DataErrReader(bytes.NewReader(s.packed)),
		} {
			z, err := opened(r, newGzip)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(z)
			if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes, %v; want %d, %v", s.name, name, len(got), err, len(want), wantErr)
			}
		}
	}
}

func goInflate(packed []byte) ([]byte, error) {
	z, err := stdgzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// TestDamagedGzip breaks streams everywhere: each must end in an error of kind
// Invalid, and the same for both decoders.
func TestDamagedGzip(t *testing.T) {
	for _, s := range corpus(t) {
		if len(s.packed) > 100<<10 {
			continue
		}
		last := len(s.packed) - 1
		damaged := map[string][]byte{
			"a bit of the size": flip(s.packed, last), "a bit of the checksum": flip(s.packed, last-5),
			"truncated in the trailer": s.packed[:last-3], "without a trailer": s.packed[:last-7], "truncated": s.packed[:last*2/3],
			"a byte too many": append(append([]byte(nil), s.packed...), 'x'), "zeros behind": append(append([]byte(nil), s.packed...), make([]byte, 512)...),
			"half a member behind": append(append([]byte(nil), s.packed...), s.packed[:last/2]...),
			"a reserved block":     wrapped([]byte{7}, nil), "no method": flip(s.packed, 2),
		}
		for what, b := range damaged {
			for name, open := range decoders {
				z, err := opened(bytes.NewReader(b), open)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, z); !errors.Is(err, errs.Invalid) {
					t.Errorf("%s, %s, %s decoder: %v", s.name, what, name, err)
				}
			}
		}
	}
}

func flip(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 4
	return b
}

// TestGzipGoesOnAtEveryMark opens each stream again at each of its marks, from
// the text of the state, as another process would.
func TestGzipGoesOnAtEveryMark(t *testing.T) {
	inside := 0
	for _, s := range corpus(t) {
		z, err := Stream(iotest.HalfReader(bytes.NewReader(s.packed)))
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; ; {
			p, err := z.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			at += len(p)
			if _, ok := z.Position(); !ok {
				continue
			}
			state := z.Mark()
			if state.Member != nil {
				inside++
			}
			goesOn(t, s, state, at)
		}
	}
	if inside == 0 && marksInside {
		t.Error("no mark was inside of a member")
	}
}

// goesOn checks that state is a mark of s at plain byte at.
func goesOn(t *testing.T, s sample, state State, at int) {
	t.Helper()
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	var again State
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	z, err := Resume(bytes.NewReader(s.packed[again.Offset:]), again)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(got, s.plain[at:]) {
		t.Fatalf("%s, from byte %d of %d on: %d bytes, %v", s.name, at, len(s.plain), len(got), err)
	}
	if again.Member == nil || len(s.packed) > 100<<10 {
		return
	}
	bad := flip(s.packed, len(s.packed)-1)
	if z, err = Resume(bytes.NewReader(bad[again.Offset:]), again); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, z); !errors.Is(err, errs.Invalid) {
		t.Errorf("%s, damaged behind a mark: %v", s.name, err)
	}
}

func TestForeignStatesAreRefused(t *testing.T) {
	for name, s := range map[string]State{
		"none": {}, "a later version": {Version: stateVersion + 1, Kind: kindGzip}, "another kind": {Version: stateVersion, Kind: "brotli"},
		"no lengths": {Version: stateVersion, Kind: kindGzip, Member: &member{}},
		"a bad code": {Version: stateVersion, Kind: kindGzip, Member: &member{Phase: 2, Lengths: bytes.Repeat([]byte{15}, 320)}},
		"long codes": {Version: stateVersion, Kind: kindGzip, Member: &member{Phase: 2, Lengths: bytes.Repeat([]byte{200}, 320)}},
		"no phase":   {Version: stateVersion, Kind: kindGzip, Member: &member{Phase: 9, Lengths: make([]byte, 320)}},
		"history":    {Version: stateVersion, Kind: kindGzip, Member: &member{Lengths: make([]byte, 320), History: make([]byte, 1<<20)}},
	} {
		if _, err := Resume(bytes.NewReader(nil), s); !errors.Is(err, errs.Unsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzGzip compares with Go: the same bytes, or an error of both.
func FuzzGzip(f *testing.F) {
	for _, s := range corpus(f) {
		if len(s.packed) < 4<<10 {
			f.Add(s.packed, true)
			f.Add(s.packed[10:], false)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		if !whole { // most of what is tried would break the checksum
			b = fitting(b)
		}
		if len(b) == 0 {
			return // no member is no error between two, but is one to Go
		}
		want, wantErr := goInflate(b)
		z, err := opened(iotest.HalfReader(bytes.NewReader(b)), newGzip)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(z, int64(len(want))+1))
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v; Go has %d, %v", len(got), err, len(want), wantErr)
		}
	})
}

// fitting puts the header before a DEFLATE stream, and the trailer that fits
// behind it.
func fitting(b []byte) []byte {
	r := bytes.NewReader(b)
	plain, err := io.ReadAll(flate.NewReader(r))
	if err != nil {
		return wrapped(b, nil)
	}
	return wrapped(b[:len(b)-r.Len()], plain)
}

// TestGzipIsDecodedIntoGivenBuffers gives buffers of many sizes, the same one
// again too, and where a mark is, one that is not needed yet.
func TestGzipIsDecodedIntoGivenBuffers(t *testing.T) {
	for _, s := range corpus(t) {
		z, err := opened(bytes.NewReader(s.packed), newGzip)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := z.d.(placer); !ok {
			t.Skip("this build's decoder does not place")
		}
		var got, buf []byte
		at := 0
		for n := 0; ; n++ {
			if z.Full() || n%7 == 0 {
				if n%3 != 0 || buf == nil {
					buf = make([]byte, 33<<10+n%5*1000)
				}
				at, _ = z.Place(buf)
			}
			p, err := z.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if len(p) > 0 && &p[0] != &buf[at] {
				t.Fatalf("%s: %d bytes do not lie at %d of the buffer", s.name, len(p), at)
			}
			at += len(p)
			got = append(got, p...)
		}
		if !bytes.Equal(got, s.plain) {
			t.Errorf("%s: %d of %d bytes", s.name, len(got), len(s.plain))
		}
	}
}
