package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestASlowConnectionIsSlow(t *testing.T) {
	const size = 5_000_000
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, send := range map[string]func(net.Conn) error{
		"bytes": func(c net.Conn) error {
			_, err := c.Write(make([]byte, size))
			return err
		},
		"a file": func(c net.Conn) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.CopyN(c, f, size)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { sendSlowly(t, size, send) })
	}
}

func sendSlowly(t *testing.T, size int64, send func(net.Conn) error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		c, err := slowly(l).Accept()
		if err != nil {
			sent <- err
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 1))
		sent <- send(c)
	}()
	began := time.Now()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, c)
	if err != nil || n != size {
		t.Fatal(n, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 110*time.Millisecond {
		t.Errorf("took %s: 20 ms and 5 MB at 50 MB/s are 120 ms", took)
	}
}
