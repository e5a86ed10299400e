// Command berth-runtime makes and keeps the containers of one node. It serves
// berthd over a unix socket; pkg/runtime has the verbs, pkg/runtime/supervisor
// how it survives its own death.
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct"
	"github.com/berth-run/berth/pkg/runtime/oci"
	"github.com/berth-run/berth/pkg/runtime/supervisor"
)

// version is stamped in by the build.
var version = "devel"

// programVariable remembers the program's file, which a sealed copy has not.
const programVariable = "_BERTH_RUNTIME_PROGRAM"

func init() { libct.Init() } // the process may be a helper of libcontainer, which ends here

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	if os.Getenv(programVariable) == "" {
		if exe, err := os.Executable(); err == nil {
			_ = os.Setenv(programVariable, exe) // the name is valid
		}
	}
	syscall.Umask(0o022) // containers inherit it
	if err := libct.Seal(); err != nil {
		slog.Warn("runs unsealed, and slower", "err", err)
	}
	o.Program = os.Getenv(programVariable)
	os.Exit(supervisor.Main(o))
}

func parse(args []string) (supervisor.Options, error) {
	o := supervisor.Options{Version: version}
	flags := flag.NewFlagSet("berth-runtime", flag.ContinueOnError)
	flags.StringVar(&o.State, "state", "/run/berth", "state `directory`, on tmpfs")
	flags.StringVar(&o.Listen, "listen", "", "`path` of the socket (default <state>/runtime.sock)")
	flags.StringVar(&o.CgroupDriver, "cgroup-driver", "auto", "who makes cgroups: cgroupfs, systemd, or auto: systemd where it runs the machine with cgroup v2")
	level := flags.String("log-level", "info", "debug, info, warn or error")
	printVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *printVersion {
		fmt.Println("berth-runtime", version)
		os.Exit(0)
	}
	return o, complete(&o, flags, *level)
}

// complete checks the flags and derives the rest.
func complete(o *supervisor.Options, flags *flag.FlagSet, level string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return complain(flags, "log-level", level)
	}
	slog.SetLogLoggerLevel(l)
	if o.CgroupDriver == "auto" {
		o.CgroupDriver = defaultDriver()
	}
	if o.CgroupDriver != "cgroupfs" && o.CgroupDriver != "systemd" {
		return complain(flags, "cgroup-driver", o.CgroupDriver)
	}
	if flags.NArg() > 0 {
		return complain(flags, "argument", flags.Arg(0))
	}
	if o.Listen == "" {
		o.Listen = filepath.Join(o.State, "runtime.sock")
	}
	systemd := o.CgroupDriver == "systemd"
	bundles := filepath.Join(o.State, "bundles")
	o.NewEngine = func(dir string) (runtime.Engine, error) {
		builtin, err := libct.New(libct.Options{Root: dir, Bundles: bundles, SystemdCgroup: systemd})
		if err != nil {
			return nil, err
		}
		return oci.New(builtin, oci.Options{Root: dir, SystemdCgroup: systemd})
	}
	return nil
}

// defaultDriver is systemd where it runs the machine with cgroup v2: berthd and
// kubelet decide alike.
func defaultDriver() string {
	for _, path := range []string{"/run/systemd/system", "/sys/fs/cgroup/cgroup.controllers"} {
		if _, err := os.Stat(path); err != nil {
			return "cgroupfs"
		}
	}
	return "systemd"
}

func complain(flags *flag.FlagSet, what, value string) error {
	err := fmt.Errorf("%s %q is not known", what, value)
	fmt.Fprintln(flags.Output(), err)
	flags.Usage()
	return err
}
