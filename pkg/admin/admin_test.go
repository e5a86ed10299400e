package admin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/berth-run/berth/pkg/admin"
	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// fakeRuntime has one container, "c1", that echoes its stdin in upper case to
// stdout, says "bye" on stderr and ends.
type fakeRuntime struct {
	runtime.Runtime
	events  chan runtime.Event
	killed  []runtime.KillRequest
	resized chan [2]uint16
	state   runtime.State
	deaths  atomic.Int32 // how often it still dies under a call
}

func (f *fakeRuntime) dies() error {
	if f.deaths.Add(-1) >= 0 {
		return fmt.Errorf("connection lost: %w", errs.Unavailable)
	}
	return nil
}

func (f *fakeRuntime) Kill(_ context.Context, r runtime.KillRequest) error {
	f.killed = append(f.killed, r)
	return nil
}

func (f *fakeRuntime) Resize(_ context.Context, _ string, w, h uint16) error {
	f.resized <- [2]uint16{w, h}
	return nil
}

func (f *fakeRuntime) Attach(_ context.Context, _ runtime.AttachRequest, s runtime.AttachIO) error {
	if err := f.dies(); err != nil {
		return err
	}
	in, err := io.ReadAll(s.Stdin)
	if err != nil {
		return err
	}
	_, err = s.Stdout.Write(bytes.ToUpper(in))
	if s.Stderr != nil {
		_, _ = io.WriteString(s.Stderr, "bye")
	}
	return err
}

func (f *fakeRuntime) List(context.Context) ([]runtime.Container, error) {
	return []runtime.Container{{ID: "c1", State: f.state, ExitCode: 7}}, nil
}

func (f *fakeRuntime) Events(ctx context.Context, each func(runtime.Event)) error {
	each(runtime.Event{Type: runtime.Subscribed})
	if err := f.dies(); err != nil {
		return err
	}
	for {
		select {
		case e := <-f.events:
			each(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeRuntime) Version(context.Context) (runtime.Version, error) {
	return runtime.Version{}, fmt.Errorf("dial: %w", errs.Unavailable)
}

// fakeImages keeps what it is given.
type fakeImages struct {
	admin.Images
	loaded bytes.Buffer
	reject error
}

func (f *fakeImages) Pull(_ context.Context, r *apiv1.PullRequest, progress func(*apiv1.PullProgress)) (*apiv1.Image, error) {
	progress(&apiv1.PullProgress{Phase: "downloading", Offset: 1, Total: 2})
	return &apiv1.Image{Id: "sha256:1", RepoTags: []string{r.Image}}, nil
}

func (f *fakeImages) Load(_ context.Context, r io.Reader) ([]*apiv1.Image, error) {
	if f.reject != nil {
		return nil, f.reject
	}
	_, err := io.Copy(&f.loaded, r)
	return []*apiv1.Image{{Id: "sha256:2"}}, err
}

func (f *fakeImages) Save(_ context.Context, r *apiv1.SaveRequest, w io.Writer) error {
	if _, err := fmt.Fprint(w, r.Format, strings.Repeat("x", 3<<20)); err != nil {
		return err
	}
	return f.reject
}

func serve(t *testing.T, d admin.Deps) apiv1.AdminClient {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	admin.New(d).Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return apiv1.NewAdminClient(conn)
}

func TestAttachCarriesAllStreamsAndSizes(t *testing.T) {
	rt := &fakeRuntime{resized: make(chan [2]uint16, 1)}
	rt.deaths.Store(1) // the next worker takes over what was sent
	stream, err := serve(t, admin.Deps{Runtime: rt}).Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*apiv1.AttachRequest{
		{Request: &apiv1.AttachRequest_Start{Start: &apiv1.AttachStart{ContainerId: "c1", Stdin: true, Stdout: true, Stderr: true}}},
		{Request: &apiv1.AttachRequest_Size{Size: &apiv1.TerminalSize{Width: 80, Height: 24}}},
		{Request: &apiv1.AttachRequest_Stdin{Stdin: []byte("hello")}},
		{Request: &apiv1.AttachRequest_CloseStdin{CloseStdin: true}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	var out, errOut string
	for n := 0; ; n++ {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && m.GetAttached() == nil {
			t.Errorf("first message: %v", m)
		}
		out, errOut = out+string(m.GetStdout()), errOut+string(m.GetStderr())
	}
	if out != "HELLO" || errOut != "bye" {
		t.Errorf("got %q and %q", out, errOut)
	}
	if size := <-rt.resized; size != [2]uint16{80, 24} {
		t.Errorf("size %v", size)
	}
}

func TestAttachNeedsAContainerFirst(t *testing.T) {
	stream, err := serve(t, admin.Deps{Runtime: &fakeRuntime{}}).Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_CloseStdin{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), "names no container") {
		t.Errorf("got %v", err)
	}
}

func TestWaitSeesPastAndComingExits(t *testing.T) {
	rt := &fakeRuntime{state: runtime.Stopped, events: make(chan runtime.Event, 1)}
	client := serve(t, admin.Deps{Runtime: rt})
	if r, err := client.Wait(t.Context(), &apiv1.WaitRequest{ContainerId: "c1"}); err != nil || r.ExitCode != 7 {
		t.Errorf("past: %v, %v", r, err)
	}
	rt.state = runtime.Running
	rt.events <- runtime.Event{Type: runtime.Exited, Container: runtime.Container{ID: "c1", ExitCode: 137, OOMKilled: true}}
	if r, err := client.Wait(t.Context(), &apiv1.WaitRequest{ContainerId: "c1"}); err != nil || r.ExitCode != 137 || !r.OomKilled {
		t.Errorf("coming: %v, %v", r, err)
	}
	if _, err := client.Wait(t.Context(), &apiv1.WaitRequest{ContainerId: "other"}); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("unknown: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Wait(ctx, &apiv1.WaitRequest{ContainerId: "c1"}); err == nil {
		t.Error("no exit, and Wait returned")
	}
}

func TestWaitOutlivesAWorker(t *testing.T) {
	rt := &fakeRuntime{state: runtime.Running, events: make(chan runtime.Event, 1)}
	rt.deaths.Store(2)
	rt.events <- runtime.Event{Type: runtime.Exited, Container: runtime.Container{ID: "c1", ExitCode: 5}}
	if r, err := serve(t, admin.Deps{Runtime: rt}).Wait(t.Context(), &apiv1.WaitRequest{ContainerId: "c1"}); err != nil || r.ExitCode != 5 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestArchivesStreamBothWays(t *testing.T) {
	images := &fakeImages{}
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Images: images})
	up, err := client.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one ", "two"} {
		if err := up.Send(&apiv1.LoadRequest{Data: []byte(part)}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := up.CloseAndRecv(); err != nil || len(r.Images) != 1 || images.loaded.String() != "one two" {
		t.Errorf("load: %v, %v, %q", r, err, images.loaded.String())
	}
	down, err := client.Save(t.Context(), &apiv1.SaveRequest{Images: []string{"a"}, Format: "oci"})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		m, err := down.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Data...)
	}
	if len(got) != 3+3<<20 || !bytes.HasPrefix(got, []byte("ocix")) {
		t.Errorf("save: %d bytes", len(got))
	}
}

func TestSaveTellsALateError(t *testing.T) {
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Images: &fakeImages{reject: errors.New("disk is gone")}})
	down, err := client.Save(t.Context(), &apiv1.SaveRequest{Images: []string{"a"}})
	for err == nil {
		_, err = down.Recv()
	}
	if !strings.Contains(err.Error(), "disk is gone") {
		t.Errorf("got %v", err)
	}
}

func TestPullEndsWithTheImage(t *testing.T) {
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Images: &fakeImages{}})
	stream, err := client.Pull(t.Context(), &apiv1.PullRequest{Image: "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.Progress.GetPhase() != "downloading" {
		t.Errorf("first: %v, %v", first, err)
	}
	last, err := stream.Recv()
	if err != nil || last.Image.GetId() != "sha256:1" {
		t.Errorf("last: %v, %v", last, err)
	}
}

func TestDirectoriesStayInTheirTree(t *testing.T) {
	root := t.TempDir()
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Root: root})
	for _, name := range []string{"", ".", "..", "a/b", "../x", "-a", strings.Repeat("a", 200)} {
		if r, err := client.OpenVolume(t.Context(), &apiv1.OpenVolumeRequest{Name: name}); err == nil {
			t.Errorf("volume %q became %s", name, r.Path)
		}
		if _, err := client.RemoveLogs(t.Context(), &apiv1.RemoveLogsRequest{PodUid: name}); err == nil {
			t.Errorf("logs of %q were removed", name)
		}
	}
	for range 2 {
		if r, err := client.OpenVolume(t.Context(), &apiv1.OpenVolumeRequest{Name: "data"}); err != nil || r.Path != filepath.Join(root, "volumes/data") {
			t.Fatalf("got %v, %v", r, err)
		}
	}
	logs, err := client.OpenLogs(t.Context(), &apiv1.OpenLogsRequest{PodUid: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := client.RemoveLogs(t.Context(), &apiv1.RemoveLogsRequest{PodUid: "u1"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(logs.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("logs are still there: %v", err)
	}
}

func TestPlatformIsOSAndArchitecture(t *testing.T) {
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Images: admin.FromImages(nil)})
	for _, bad := range []string{"linux", "linux/", "/arm64", "a/b/c/d"} {
		stream, err := client.Pull(t.Context(), &apiv1.PullRequest{Image: "x", Platform: bad})
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil || !strings.Contains(err.Error(), "as in linux/arm64") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestVerifyTellsProgressAndThenProblems(t *testing.T) {
	var repaired bool
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Checkers: []admin.Checker{
		{Store: "pod"},
		{Store: "image", Verify: func(_ context.Context, repair bool, progress func(admin.Progress)) ([]admin.Problem, error) {
			repaired = repair
			progress(admin.Progress{Object: "layer x", Done: 1, Total: 2})
			return []admin.Problem{{Object: "layer x", What: "torn", Repaired: true}}, errors.New("boom")
		}},
	}})
	stream, err := client.Verify(t.Context(), &apiv1.VerifyRequest{Repair: true})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.Progress.GetStore() != "image" || first.Progress.Object != "layer x" || first.Progress.Total != 2 {
		t.Errorf("%v, %v", first, err)
	}
	last, err := stream.Recv()
	if err != nil || last.Progress != nil || len(last.Problems) != 2 || !last.Problems[0].Repaired || !strings.Contains(last.Problems[1].What, "did not finish: boom") {
		t.Errorf("%v, %v", last, err)
	}
	if !repaired {
		t.Error("was not asked to repair")
	}
}

func TestCheckGoesOnPastABrokenChecker(t *testing.T) {
	client := serve(t, admin.Deps{Runtime: &fakeRuntime{}, Checkers: []admin.Checker{
		{Store: "pod", Check: func(context.Context, bool) ([]admin.Problem, error) { return nil, errors.New("boom") }},
		{Store: "image", Check: func(_ context.Context, repair bool) ([]admin.Problem, error) {
			return []admin.Problem{{Object: "x", What: "torn", Repaired: repair}}, nil
		}},
	}})
	r, err := client.Check(t.Context(), &apiv1.CheckRequest{Repair: true})
	if err != nil || len(r.Problems) != 2 || !strings.Contains(r.Problems[0].What, "boom") || !r.Problems[1].Repaired {
		t.Errorf("got %v, %v", r, err)
	}
	info, err := client.Info(t.Context(), &apiv1.InfoRequest{})
	if err != nil || info.Runtime.Error == "" {
		t.Errorf("info hides that the runtime is away: %v, %v", info, err)
	}
}
