package main

import (
	"archive/tar"
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

func TestSplitKeepsEveryEntryUnderItsDirectories(t *testing.T) {
	var whole bytes.Buffer
	w := tar.NewWriter(&whole)
	for _, name := range []string{"./", "./usr/", "./usr/lib/", "./usr/lib/a", "./usr/lib/b"} {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}
		if name[len(name)-1] != '/' {
			h.Typeflag, h.Size = tar.TypeReg, 4096
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	streams, err := split(&whole, 5000)
	if err != nil || len(streams) != 2 {
		t.Fatal(len(streams), err)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(streams[1])); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"./usr/", "./usr/lib/", "./usr/lib/b"}; !slices.Equal(names, want) {
		t.Errorf("the second layer has %q, want %q", names, want)
	}
}

func TestRatiosAreJudgedAgainstBerth(t *testing.T) {
	took := func(runtime string, d time.Duration) result {
		return result{Runtime: runtime, Samples: []sample{{Wall: d}}}
	}
	all := []result{took(harness.Containerd, 10*time.Second), took(harness.TunedContainerd, 3*time.Second), took(harness.Berth, 2*time.Second)}
	suite{Default: 5, Tuned: 2}.judge(all)
	if all[0].Ratio != 5 || all[1].Ratio != 1.5 || all[2].Ratio != 0 {
		t.Errorf("ratios %v, %v, %v", all[0].Ratio, all[1].Ratio, all[2].Ratio)
	}
	if n := failures(all); n != 1 {
		t.Errorf("%d thresholds missed, want 1", n)
	}
}
