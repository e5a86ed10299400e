package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/image/reference"
	client "github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
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

// little is an image of two layers.
var little = recipe{"little", func(context.Context, string) ([]images.Layer, error) {
	file := func(name string) images.File {
		return images.File{Name: name, Data: []byte(strings.Repeat(name, 100_000))}
	}
	return []images.Layer{
		{Files: []images.File{file("a")}},
		{Files: []images.File{file("b"), file("c")}, Compression: images.Zstd},
	}, nil
}}

func TestAnImageIsMadeOnceAndServedFromItsFiles(t *testing.T) {
	dir := t.TempDir()
	if err := little.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	again := recipe{little.Name, func(context.Context, string) ([]images.Layer, error) { return nil, errors.New("made twice") }}
	if err := again.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	home := dir + "/" + little.Name
	m, err := load(home)
	if err != nil {
		t.Fatal(err)
	}
	if m.Unpacked < 300_000 || m.Unpacked > 310_000 {
		t.Errorf("%d bytes of tar streams, want those of three files of 100,000", m.Unpacked)
	}
	r := &registry.Registry{}
	if err := m.add(r, home); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer server.Close()
	layers := littleLayers(t, home, strings.TrimPrefix(server.URL, "http://"), task{})
	for _, l := range layers {
		if err := l.fetch(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryStageDoesItsPart(t *testing.T) {
	dir := t.TempDir()
	if err := little.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks[1:] { // the registry's is tested above
		layers := littleLayers(t, dir+"/"+little.Name, host, task)
		if len(layers) != 2 {
			t.Fatal(len(layers), "layers")
		}
		if err := each(t.Context(), layers, task.do); err != nil {
			t.Errorf("%s: %v", task.Name, err)
		}
	}
}

func TestAStageOfOtherBytesFails(t *testing.T) {
	dir := t.TempDir()
	if err := little.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	layers := littleLayers(t, dir+"/"+little.Name, host, task{packed: true, plain: true})
	for _, l := range layers {
		l.plain[0][0] ^= 1
		if l.hashPacked(t.Context()) != nil || l.hashPlain(t.Context()) == nil || l.hashBoth(t.Context()) == nil {
			t.Error("the digest of other plain bytes is right")
		}
		l.packed[len(l.packed)-1] ^= 1
		if l.hashPacked(t.Context()) == nil || l.inflate(t.Context()) == nil {
			t.Error("other packed bytes are right")
		}
	}
}

// littleLayers prepares a stage.
func littleLayers(t *testing.T, home, host string, of task) []content {
	t.Helper()
	name, err := reference.Parse(host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	source, err := client.New(client.Options{}).Repository(name, client.Auth{})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := prepare(t.Context(), of, home, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for n := range layers {
		layers[n].source = source
	}
	return layers
}
