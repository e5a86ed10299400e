package daemon

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
)

// TestMain makes this program a berth-runtime where it is started as one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "berth-runtime" {
		if err := serveRuntime(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// slowRuntime has a berth-runtime take a while to answer.
const slowRuntime = "BERTH_TEST_SLOW_RUNTIME"

// serveRuntime answers as a berth-runtime without containers, until it is killed or
// the tests have ended: one that they did not wait for is not known to them.
func serveRuntime(args []string) error {
	flags := flag.NewFlagSet("berth-runtime", flag.ContinueOnError)
	state, driver := flags.String("state", "", ""), flags.String("cgroup-driver", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := rpc.Listen(filepath.Join(*state, "runtime.sock"))
	if err != nil {
		return err
	}
	go func() {
		tests := os.Getppid()
		for range time.Tick(100 * time.Millisecond) {
			if os.Getppid() != tests {
				os.Exit(0)
			}
		}
	}()
	return rpc.NewServer(func(ctx context.Context, c *rpc.Call) (any, error) {
		switch c.Verb {
		case runtime.VerbVersion:
			if slow, err := time.ParseDuration(os.Getenv(slowRuntime)); err == nil {
				<-time.After(slow)
			}
			return runtime.Version{Version: "test", AnchorPID: os.Getpid(), WorkerPID: os.Getpid(), CgroupDriver: *driver}, nil
		case runtime.VerbList:
			return []runtime.Container{}, nil
		case runtime.VerbEvents:
			if err := c.Send(runtime.Event{Type: runtime.Subscribed}); err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errs.Unsupported
	}).Serve(l)
}
