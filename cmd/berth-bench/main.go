// Command berth-bench measures a Kubernetes container runtime over its CRI
// socket, with the calls that kubelet makes, and prints p50, p95 and maximum.
//
// It knows nothing of Berth: the same suites run against any runtime that
// serves CRI v1, which is how they are compared. Each suite is one file. All
// pods that a run makes carry a label of that run, and are removed at its end,
// also after an interrupt.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// version is stamped by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "berth-bench:", err)
		stop()
		os.Exit(1)
	}
}

// command builds the command line.
func command() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "berth-bench",
		Short:         "Measure a container runtime over its CRI socket",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := root.PersistentFlags()
	f.StringVar(&o.Endpoint, "endpoint", "unix:///run/berth/berth.sock", "the runtime's CRI socket")
	f.StringVar(&o.Image, "image", "busybox", "an image with busybox' commands in /bin, present already")
	f.StringVar(&o.Network, "network", networkPod, "network of the pods: host or pod")
	f.StringVar(&o.Handler, "runtime-handler", "", "runtime handler of the pods")
	f.StringVar(&o.CgroupParent, "cgroup-parent", "", "cgroup under which each pod gets one of its own; empty leaves it to the runtime")
	f.StringVar(&o.LogDir, "log-dir", os.TempDir(), "directory in which the pods' log directories are made")
	f.StringToStringVar(&o.Labels, "label", nil, "labels of everything that is made")
	f.IntVarP(&o.N, "n", "n", 0, "how many times; 0 is the suite's own number")
	f.IntVar(&o.Warmup, "warmup", 3, "how many times before measuring")
	f.BoolVar(&o.JSON, "json", false, "print JSON instead of a table")
	root.AddCommand(
		suite(&o, lifecycleCommand(), 50, lifecycle),
		suite(&o, parallelCommand(&o), 80, parallel),
		suite(&o, densityCommand(&o), 100, density),
		suite(&o, execCommand(&o), 200, execSync),
		suite(&o, logsCommand(&o), 5, logs),
		suite(&o, pullCommand(&o), 5, pull),
		suite(&o, listsCommand(&o), 100, lists),
		suite(&o, probesCommand(&o), 50, probes),
	)
	return root
}

// suite completes c: dial, run, clean up, print.
func suite(o *options, c *cobra.Command, n int, run func(context.Context, *driver) (report, error)) *cobra.Command {
	c.Args = cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.N <= 0 {
			o.N = n
		}
		d, err := dial(*o)
		if err != nil {
			return err
		}
		defer d.Close()
		r, err := run(c.Context(), d)
		if cleanErr := d.CleanUp(); err == nil {
			err = cleanErr
		}
		if err != nil {
			return err
		}
		r.Suite, r.Endpoint, r.Runtime = c.Name(), o.Endpoint, d.Runtime
		if o.JSON {
			return r.JSON(c.OutOrStdout())
		}
		return r.Table(c.OutOrStdout())
	}
	return c
}
