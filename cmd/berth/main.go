// Command berth is Berth for people: it runs, lists, reads and removes
// containers, pods and images of a berthd on this machine, with the names that
// Docker users know.
//
// It decides nothing: each verb is a file that turns flags into a call of
// package client and the answer into words. It keeps no state.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/client"
)

// version is stamped in by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, errOut: os.Stderr}
	os.Exit(a.main(ctx, os.Args[1:]))
}

// app is one invocation.
type app struct {
	host        string
	in          io.Reader
	out, errOut io.Writer
}

// main runs the command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			a.complain(exit.err)
		}
		return exit.code
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return 130 // as a shell has it for SIGINT
	}
	a.complain(err)
	return 1
}

// complain writes an error as one line.
func (a *app) complain(err error) {
	fmt.Fprintln(a.errOut, "berth: "+strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

// exitError ends the program with a code of its own, as a container's, and
// silently where err is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// dial connects to the daemon that --host or $BERTH_HOST name.
func (a *app) dial() (*client.Client, error) { return client.Dial(a.host) }

// The groups of verbs in berth's help.
const (
	groupContainers = "containers"
	groupImages     = "images"
	groupPods       = "pods"
	groupDaemon     = "daemon"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "berth",
		Short: "Run containers on this machine",
		Long: "berth runs containers through berthd, on this machine.\n\n" +
			"  berth run --rm -it busybox            a shell\n" +
			"  berth run -d --name web -p 8080:80 nginx\n" +
			"  berth logs -f web                     what it writes\n" +
			"  berth apply -f pod.yaml               a Kubernetes Pod, without Kubernetes",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.PersistentFlags().StringVar(&a.host, "host", "", "address of berthd (default $"+client.HostEnv+", else "+client.DefaultHost+")")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: groupContainers, Title: "Containers:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupPods, Title: "Pods:"},
		&cobra.Group{ID: groupDaemon, Title: "The daemon and this program:"},
	)
	root.SetHelpCommandGroupID(groupDaemon)
	root.SetCompletionCommandGroupID(groupDaemon)
	addTo(root, groupContainers, runCommand(a), psCommand(a), logsCommand(a), execCommand(a), attachCommand(a), cpCommand(a), stopCommand(a), killCommand(a), rmCommand(a), checkpointCommand(a), restoreCommand(a), inspectCommand(a), statsCommand(a))
	addTo(root, groupImages, imagesCommand(a), pullCommand(a), pushCommand(a), loadCommand(a), saveCommand(a), tagCommand(a), rmiCommand(a), historyCommand(a), imageCommand(a))
	addTo(root, groupPods, podsCommand(a), portForwardCommand(a), topCommand(a), applyCommand(a), deleteCommand(a))
	addTo(root, groupDaemon, eventsCommand(a), checkCommand(a), doctorCommand(a), dfCommand(a), systemCommand(a), infoCommand(a), versionCommand(a))
	return root
}

func addTo(root *cobra.Command, group string, verbs ...*cobra.Command) {
	for _, v := range verbs {
		v.GroupID = group
		root.AddCommand(v)
	}
}

// with is a verb's body that needs the daemon.
func (a *app) with(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return f(cmd.Context(), c, args)
	}
}

// each calls f for every argument, complains of those that fail, and goes on.
func (a *app) each(args []string, f func(string) error) error {
	failed := 0
	for _, arg := range args {
		if err := f(arg); err != nil {
			a.complain(err)
			failed++
		}
	}
	if failed > 0 {
		return &exitError{code: 1}
	}
	return nil
}
