// Command berthd is the daemon that kubelet, crictl and berth talk to. It serves
// CRI and Berth's own API on one unix socket; pkg/daemon has what it does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/daemon"
)

// version is stamped in by the build.
var version = "devel"

// defaultConfig is read where it exists and no other is named.
const defaultConfig = "/etc/berth/berth.toml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	unix.Umask(0o022) // whatever the shell has: modes are meant as they are written
	// While images are pulled the heap is buffers and windows, which hold no pointers:
	// to collect twice as often costs nothing that can be measured.
	debug.SetGCPercent(50)
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	f := parse(args)
	c, err := f.load()
	if err == nil {
		err = daemon.Run(ctx, daemon.Options{Config: c, Load: f.load, Standalone: f.standalone, Version: version})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "berthd:", err)
		return 1
	}
	return 0
}

// flags are the command line.
type flags struct {
	set        *flag.FlagSet
	config     string
	over       config.Config // what the flags say, where they are set
	standalone bool
}

func parse(args []string) *flags {
	f := &flags{set: flag.NewFlagSet("berthd", flag.ExitOnError)}
	f.set.StringVar(&f.config, "config", defaultConfig, "configuration `file`; without it the defaults hold")
	f.set.StringVar(&f.over.Root, "root", "", "`directory` of images, containers and records")
	f.set.StringVar(&f.over.State, "state", "", "`directory` of run-time state, on tmpfs")
	f.set.StringVar(&f.over.Listen, "listen", "", "`path` of the socket (default <state>/berth.sock)")
	f.set.IntVar(&f.over.LogLevel, "log-level", 0, "verbosity: 0, 2 for each request, 4 for more")
	f.set.BoolVar(&f.standalone, "standalone", false, "need nothing else: start berth-runtime, bring a bridge network")
	printVersion := f.set.Bool("version", false, "print the version and exit")
	_ = f.set.Parse(args) // ends the program where it is wrong
	if f.set.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "berthd: argument %q: there are only flags\n", f.set.Arg(0))
		os.Exit(2)
	}
	if *printVersion {
		fmt.Println("berthd", version)
		os.Exit(0)
	}
	return f
}

// load reads the configuration and puts the flags over it.
func (f *flags) load() (config.Config, error) {
	c, err := config.Load(f.config)
	named := false
	f.set.Visit(func(set *flag.Flag) { named = named || set.Name == "config" })
	if errors.Is(err, fs.ErrNotExist) && !named {
		c, err = config.Default(), nil
	}
	if err != nil {
		return c, err
	}
	f.set.Visit(func(set *flag.Flag) {
		switch set.Name {
		case "root":
			c.Root = f.over.Root
		case "state":
			c.State = f.over.State
		case "listen":
			c.Listen = f.over.Listen
		case "log-level":
			c.LogLevel = f.over.LogLevel
		}
	})
	return c, c.Validate()
}
