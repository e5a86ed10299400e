package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// The registry of the pull suite: plain HTTP on loopback, which both runtimes
// speak to without configuration, in the run's network namespace, where every
// port is free.
const (
	pullSuite = "pull"
	pullHost  = "127.0.0.1:5000"
	pullRepo  = "bench/pull"
	pullTag   = "1"
	pullRef   = pullHost + "/" + pullRepo + ":" + pullTag
)

// pullShape is the image that is pulled: what a run of seconds takes.
var pullShape = shape{Layers: 4, Files: 1000, FileSize: 12 << 10, BigSize: 16 << 20}

// shape says what is in an image: layers of many small files and one big one.
type shape struct{ Layers, Files, FileSize, BigSize int }

// Image makes it. Its content is the same each time, and gzip halves it.
func (s shape) Image() images.Image {
	random := rand.NewChaCha8([32]byte{})
	var i images.Image
	for l := range s.Layers {
		top := fmt.Sprintf("layer%d/", l)
		files := []images.File{{Name: top, Mode: 0o755}, {Name: top + "big", Data: text(random, s.BigSize)}}
		for f := range s.Files {
			if f%100 == 0 {
				files = append(files, images.File{Name: fmt.Sprintf("%s%d/", top, f/100), Mode: 0o755})
			}
			files = append(files, images.File{Name: fmt.Sprintf("%s%d/%d", top, f/100, f), Data: text(random, s.FileSize)})
		}
		i.Layers = append(i.Layers, images.Layer{Files: files})
	}
	return i
}

// text returns n bytes of 16 letters.
func text(random *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 16 {
		var word [16]byte
		binary.LittleEndian.PutUint64(word[:], random.Uint64())
		for k := range word {
			at := 15 - k // from the end: the first half holds what is spread
			word[at] = 'a' + word[at/2]>>(at%2*4)&15
		}
		copy(b[i:], word[:])
	}
	return b
}

// serveImage serves the image at l until stop is called.
func serveImage(l net.Listener, i images.Image) (stop func(), err error) {
	built, err := i.Build()
	if err != nil {
		return nil, err
	}
	r := &registry.Registry{}
	r.Add(pullRepo, pullTag, built)
	server, done := &http.Server{Handler: r}, make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	return func() { server.Close(); <-done }, nil
}
