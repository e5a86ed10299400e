package node

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// Suite is a package's tests, which share one node.
type Suite struct {
	Name string // of the suite, in what it says and in its directory
	// Prepare has the machine's network, which the tests have not.
	Prepare func()
	// Options are the node's, whose directory is dir.
	Options func(dir string) Options
	Busybox string // is the name that the node has busybox' image under
	// Started looks at the node before the tests begin. Nil: nobody does.
	Started func(*Node) error
	// Clean removes what tests leave that is not Berth's. Nil: nothing.
	Clean func()
}

// Main runs the tests in namespaces of their own, and ends the program. What they
// leave behind fails the run. It sets node before they begin.
func (s Suite) Main(m *testing.M, node **Node) {
	flag.Parse()
	inside, code, err := Isolate(s.Prepare)
	if err != nil {
		code = s.complain(err)
	} else if inside {
		code = s.run(m, node)
	}
	os.Exit(code)
}

func (s Suite) complain(err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", s.Name, err)
	return 1
}

func (s Suite) run(m *testing.M, node **Node) int {
	dir, err := os.MkdirTemp("/tmp", "b"+s.Name)
	if err != nil {
		return s.complain(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // user namespaces pass through
		return s.complain(err)
	}
	before, err := Take(dir)
	if err != nil {
		return s.complain(err)
	}
	code := 1
	n, err := s.start(dir)
	if *node = n; err != nil {
		s.complain(err)
	} else {
		code = m.Run()
	}
	if n != nil {
		if err := n.Close(); err != nil {
			code = s.complain(err)
		}
	}
	if s.Clean != nil {
		s.Clean()
	}
	for _, thing := range Leaks(dir, before) {
		code = s.complain(fmt.Errorf("left over: %s", thing))
	}
	if code != 0 {
		tail(dir + "/berthd.log")
		tail(dir + "/run/berth-runtime.log")
	}
	_ = os.RemoveAll(dir) // what is mounted there has been complained of
	return code
}

// start starts a node and gives it an image. It may return both a node and an error.
func (s Suite) start(dir string) (*Node, error) {
	n, err := New(dir, s.Options(dir))
	if err != nil {
		return nil, err
	}
	if err := n.Start(); err != nil {
		return n, err
	}
	b, err := images.Busybox()
	if err != nil {
		return n, err
	}
	if err := n.Load(s.Busybox, b); err != nil || s.Started == nil {
		return n, err
	}
	return n, s.Started(n)
}

// Load gives the node an image.
func (n *Node) Load(name string, i images.Image) error {
	f, err := os.CreateTemp(n.Dir, "image")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }() // it goes with the node at the latest
	if err := images.Archive(f, name, i); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	_, err = n.Berth(ctx, "load", "-i", f.Name())
	return err
}

// Leaks waits a moment for what ends by itself, and returns what does not.
func Leaks(dir string, before Snapshot) (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(10*time.Second))
	defer cancel()
	_ = Until(ctx, func() error { // what is left says it
		now, err := Take(dir)
		if left = now.Left(before); err == nil && len(left) > 0 {
			return fmt.Errorf("%d things are left", len(left))
		}
		return err
	})
	return left
}

func tail(path string) {
	data, _ := os.ReadFile(path)
	lines := bytes.Split(data, []byte("\n"))
	fmt.Fprintf(os.Stderr, "%s:\n%s\n", path, bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}
