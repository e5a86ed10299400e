package cri_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cri"
	"github.com/berth-run/berth/pkg/cri/stream"
	"github.com/berth-run/berth/pkg/runtime"
)

func serveStreams(t *testing.T, sessions *cri.Sessions) *cri.Streams {
	t.Helper()
	server, err := stream.Listen(stream.Options{Address: "127.0.0.1:0"}, sessions)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve() }() // ends with Close
	t.Cleanup(server.Close)
	return &cri.Streams{Sessions: sessions, URL: server.URL}
}

func TestExecIsHadAtTheURLThatItIsAnsweredWith(t *testing.T) {
	k := newKubelet(t)
	asked := make(chan runtime.ExecRequest, 1)
	k.runtime.OnStream = func(r runtime.ExecRequest, files runtime.ExecIO) int32 {
		asked <- r
		_, _ = io.Copy(files.Stdout, files.Stdin) // what comes back tells
		return 3
	}
	id := k.start(k.run("p"), "c")
	resp, err := k.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: id[:10], Cmd: []string{"sh", "-c"}, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	e, err := remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", resp.Url)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "hello" {
		t.Errorf("got %q, %v", &out, err)
	}
	if r := <-asked; r.ID != id || strings.Join(r.Process.Args, " ") != "sh -c" || r.Process.User.UID != 1000 {
		t.Errorf("asked for %+v", r.Process)
	}
}

func TestSessionsNeedWhatRuns(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	id := k.start(podID, "c")
	ctx := t.Context()
	exec := func(id string, tty, stderr bool, cmd ...string) error {
		_, err := k.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: cmd, Stdout: true, Tty: tty, Stderr: stderr})
		return err
	}
	wantCode(t, "exec", exec(id, false, true, "true"), codes.OK)
	wantCode(t, "exec nowhere", exec("none", false, false, "true"), codes.NotFound)
	wantCode(t, "exec of nothing", exec(id, false, false), codes.InvalidArgument)
	wantCode(t, "exec with a terminal and stderr", exec(id, true, true, "true"), codes.InvalidArgument)
	attach := func(id string, stdout bool) error {
		_, err := k.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdout: stdout})
		return err
	}
	wantCode(t, "attach", attach(id, true), codes.OK)
	wantCode(t, "attach nothing", attach(id, false), codes.InvalidArgument)
	wantCode(t, "attach nowhere", attach("none", true), codes.NotFound)
	forward := func(id string, ports ...int32) error {
		_, err := k.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
		return err
	}
	wantCode(t, "forward", forward(podID, 80), codes.OK)
	wantCode(t, "forward no port", forward(podID, 0), codes.InvalidArgument)
	wantCode(t, "forward nowhere", forward("none"), codes.NotFound)
	k.runtime.Exit(id, 0, false)
	await(t, func() bool { return k.status(id).Status.State == runtimeapi.ContainerState_CONTAINER_EXITED })
	wantCode(t, "exec in what has ended", exec(id, false, false, "true"), codes.FailedPrecondition)
	wantCode(t, "attach to what has ended", attach(id, true), codes.FailedPrecondition)
	if _, err := k.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "forward to what has ended", forward(podID), codes.FailedPrecondition)
}

func TestAContainerThatEndsBeforeItsSessionBeginsIsTold(t *testing.T) {
	k := newKubelet(t)
	id := k.start(k.run("p"), "c")
	resp, err := k.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	k.runtime.Exit(id, 0, false)
	await(t, func() bool { return k.status(id).Status.State == runtimeapi.ContainerState_CONTAINER_EXITED })
	e, err := remotecommand.NewWebSocketExecutor(&rest.Config{}, http.MethodGet, resp.Url)
	if err != nil {
		t.Fatal(err)
	}
	err = e.StreamWithContext(context.WithoutCancel(t.Context()), remotecommand.StreamOptions{Stdout: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("ended with %v", err)
	}
}
