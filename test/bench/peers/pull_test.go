package main

import (
	"net"
	"net/http"
	"testing"
)

func TestThePulledImageIsTheSameEachTimeAndHalvesWhenPacked(t *testing.T) {
	s := shape{Layers: 2, Files: 150, FileSize: 1000, BigSize: 100_000}
	one, err1 := s.Image().Build()
	two, err2 := s.Image().Build()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if one.Root.Digest != two.Root.Digest {
		t.Error("two images differ")
	}
	if len(one.Layers) != 2 || one.Layers[0].Digest == one.Layers[1].Digest {
		t.Errorf("layers %v", one.Layers)
	}
	for _, l := range one.Layers {
		if l.Size < 100_000 || l.Size > 200_000 { // of 250,000 bytes of content
			t.Errorf("a layer has %d bytes", l.Size)
		}
	}
}

func TestThePulledImageIsServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop, err := serveImage(l, shape{Layers: 1}.Image())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	resp, err := http.Get("http://" + l.Addr().String() + "/v2/" + pullRepo + "/manifests/" + pullTag)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %s", resp.Status)
	}
}
