// Command serve is test/registry for other processes: it serves images and files
// from disk, over a line as slow as asked for, with the faults asked for.
//
//	serve -listen 127.0.0.1:5000 -latency 20ms -bandwidth 50000000 -layout DIR -file weights.bin
//
// It prints the name of each image once it serves, and goes on until it is killed.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/berth-run/berth/test/registry"
)

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() error {
	var layouts, files list
	var r registry.Registry
	var f registry.Fault
	listen := flag.String("listen", "127.0.0.1:0", "address")
	repository := flag.String("repository", "test", "name of images that have none; files are REPOSITORY/files:latest")
	flag.Var(&layouts, "layout", "OCI image layout to serve; may be repeated")
	flag.Var(&files, "file", "file to serve in an artifact; may be repeated")
	flag.DurationVar(&r.Line.Latency, "latency", 0, "wait before each answer")
	flag.Int64Var(&r.Line.Bandwidth, "bandwidth", 0, "bytes a second of each connection; 0: no limit")
	flag.StringVar(&r.Redirect, "redirect", "", "scheme and host of another serve, for blobs")
	flag.IntVar(&r.LinkUses, "link-uses", 0, "requests that a link of a redirect is good for; 0: all")
	flag.BoolVar(&r.Token, "token", false, "demand tokens")
	flag.IntVar(&r.TokenUses, "token-uses", 0, "requests that a token is good for; 0: all")
	flag.IntVar(&f.Skip, "skip", 0, "requests for blobs that have no fault")
	flag.IntVar(&f.Times, "times", 0, "requests after these that have it; 0: all")
	flag.IntVar(&f.Status, "status", 0, "fault: answer with this status")
	flag.StringVar(&f.RetryAfter, "retry-after", "", "with -status: seconds or a date")
	flag.BoolVar(&f.NoRange, "no-range", false, "fault: ignore ranges")
	flag.BoolVar(&f.WrongRange, "wrong-range", false, "fault: answer with another range")
	flag.Int64Var(&f.DropAfter, "drop-after", 0, "fault: break connections after so many bytes")
	flag.Int64Var(&f.StallAfter, "stall-after", 0, "fault: send nothing after so many bytes")
	flag.Int64Var(&f.Trickle, "trickle", 0, "fault: send so many bytes a second")
	flag.BoolVar(&f.WrongByte, "wrong-byte", false, "fault: send a wrong byte in the middle")
	flag.Int64Var(&f.Short, "short", 0, "fault: lack so many bytes")
	flag.BoolVar(&f.Endless, "endless", false, "fault: never end")
	flag.Parse()
	r.Faults = []registry.Fault{f}
	var names []string
	for _, dir := range layouts {
		more, err := r.AddLayout(dir, *repository)
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	if len(files) > 0 {
		if err := r.AddFiles(*repository+"/files", "latest", files...); err != nil {
			return err
		}
		names = append(names, *repository+"/files:latest")
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	for _, name := range names {
		fmt.Printf("%s/%s\n", l.Addr(), name)
	}
	s := &http.Server{Handler: &r, ReadHeaderTimeout: time.Minute}
	return s.Serve(l)
}
