package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// fakeAdmin is the daemon's admin API: some of its calls are named as CRI's are.
type fakeAdmin struct {
	apiv1.UnimplementedAdminServer
	*fakeDaemon
}

func (d *fakeAdmin) Info(_ context.Context, r *apiv1.InfoRequest) (*apiv1.InfoResponse, error) {
	var advice []*apiv1.Advice
	if r.Advice {
		advice = d.advice
	}
	return &apiv1.InfoResponse{
		Advice:  advice,
		Version: "1.0", Pid: 42, StartedAt: time.Now().Add(-3*time.Hour - time.Minute).UnixNano(), Root: "/var/lib/berth", State: "/run/berth",
		Runtime: &apiv1.InfoResponse_Runtime{Version: "1.0", AnchorPid: 43, WorkerPid: 44, CgroupDriver: "cgroupfs"},
	}, nil
}

func (d *fakeAdmin) Check(context.Context, *apiv1.CheckRequest) (*apiv1.CheckResponse, error) {
	return &apiv1.CheckResponse{Problems: d.problems}, nil
}

func (d *fakeAdmin) Verify(r *apiv1.VerifyRequest, stream apiv1.Admin_VerifyServer) error {
	for _, p := range []*apiv1.VerifyProgress{
		{Store: "image", Object: "layer sha256:1234567890abcdef", Total: 2_000_000},
		{Store: "image", Done: 2_000_000, Total: 2_000_000},
	} {
		if err := stream.Send(&apiv1.VerifyResponse{Progress: p}); err != nil {
			return err
		}
	}
	return stream.Send(&apiv1.VerifyResponse{Problems: []*apiv1.Problem{
		{Store: "image", Object: "layer damaged", What: "it has 1 name where 2 were made", Repaired: r.Repair},
	}})
}

func (d *fakeAdmin) Pull(r *apiv1.PullRequest, stream apiv1.Admin_PullServer) error {
	done := d.lock("Pull %s %s", r.Image, r.GetAuth().GetUsername()+":"+r.GetAuth().GetPassword())
	d.addImage("docker.io/library/"+r.Image+":latest", "sha256:"+strings.Repeat("9", 64))
	image := d.images["docker.io/library/"+r.Image+":latest"]
	done()
	for _, p := range []*apiv1.PullProgress{
		{Phase: "resolving"},
		{Phase: "downloading", Digest: "sha256:1234567890abcdef", Total: 2_000_000},
		{Phase: "downloading", Digest: "sha256:1234567890abcdef", Offset: 1_000_000, Total: 2_000_000},
		{Phase: "done", Digest: "sha256:1234567890abcdef", Total: 2_000_000},
	} {
		if err := stream.Send(&apiv1.PullResponse{Progress: p}); err != nil {
			return err
		}
	}
	return stream.Send(&apiv1.PullResponse{Image: &apiv1.Image{Id: image.Id}})
}

func (d *fakeAdmin) Load(stream apiv1.Admin_LoadServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		d.archive.Write(m.Data)
	}
	return stream.SendAndClose(&apiv1.LoadResponse{Images: []*apiv1.Image{{RepoTags: []string{"a:1"}}}})
}

func (d *fakeAdmin) Save(_ *apiv1.SaveRequest, stream apiv1.Admin_SaveServer) error {
	if err := stream.Send(&apiv1.SaveResponse{Data: []byte("arch")}); err != nil {
		return err
	}
	return stream.Send(&apiv1.SaveResponse{Data: []byte("ive")})
}

func (d *fakeAdmin) Untag(_ context.Context, r *apiv1.UntagRequest) (*apiv1.UntagResponse, error) {
	defer d.lock("Untag %s", r.Image)()
	return &apiv1.UntagResponse{}, nil
}

func (d *fakeAdmin) Kill(_ context.Context, r *apiv1.KillRequest) (*apiv1.KillResponse, error) {
	defer d.lock("Kill %d", r.Signal)()
	d.containers[r.ContainerId].end(128 + r.Signal)
	return &apiv1.KillResponse{}, nil
}

func (d *fakeAdmin) Wait(ctx context.Context, r *apiv1.WaitRequest) (*apiv1.WaitResponse, error) {
	d.mu.Lock()
	c, err := d.containers[r.ContainerId], d.waitError
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case d.waits <- r.ContainerId: // a nil channel waits for nobody
	default:
	}
	select {
	case <-c.ended:
		return &apiv1.WaitResponse{ExitCode: c.status.ExitCode}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *fakeAdmin) Attach(stream apiv1.Admin_AttachServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	d.mu.Lock()
	c := d.containers[first.GetStart().ContainerId]
	d.mu.Unlock()
	if err := stream.Send(&apiv1.AttachResponse{Response: &apiv1.AttachResponse_Attached{Attached: &apiv1.Attached{}}}); err != nil {
		return err
	}
	if !first.GetStart().Stdin {
		select {
		case <-c.ended:
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	var in []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) || m.GetCloseStdin() {
			break
		}
		if err != nil {
			return err
		}
		in = append(in, m.GetStdin()...)
	}
	<-c.started
	d.mu.Lock()
	defer d.mu.Unlock()
	log := fmt.Appendf(nil, "2026-01-02T15:04:05Z stdout F %s\n", in)
	if err := os.WriteFile(c.status.LogPath, log, 0o600); err != nil {
		return err
	}
	c.end(0)
	return nil
}

func (d *fakeAdmin) OpenVolume(_ context.Context, r *apiv1.OpenVolumeRequest) (*apiv1.OpenVolumeResponse, error) {
	return &apiv1.OpenVolumeResponse{Path: "/var/lib/berth/volumes/" + r.Name}, nil
}

func (d *fakeAdmin) OpenLogs(context.Context, *apiv1.OpenLogsRequest) (*apiv1.OpenLogsResponse, error) {
	return &apiv1.OpenLogsResponse{Path: d.dir}, nil
}

func (d *fakeAdmin) RemoveLogs(context.Context, *apiv1.RemoveLogsRequest) (*apiv1.RemoveLogsResponse, error) {
	defer d.lock("RemoveLogs")()
	return &apiv1.RemoveLogsResponse{}, nil
}

func (d *fakeAdmin) Apply(_ context.Context, r *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	defer d.lock("Apply %s", r.Manifest)()
	return &apiv1.ApplyResponse{
		Applied:  []*apiv1.ApplyResponse_Applied{{Namespace: "default", Name: "web", Action: "created"}},
		Warnings: []string{"pod web: spec.containers[0].livenessProbe: probes are not run yet"},
	}, nil
}

func (d *fakeAdmin) DeleteManifest(_ context.Context, r *apiv1.DeleteManifestRequest) (*apiv1.DeleteManifestResponse, error) {
	resp := &apiv1.DeleteManifestResponse{}
	for _, p := range r.Pods {
		if p.Name == "web" {
			resp.Deleted = append(resp.Deleted, p)
		} else {
			resp.Missing = append(resp.Missing, p)
		}
	}
	return resp, nil
}

func (d *fakeAdmin) ListManifests(context.Context, *apiv1.ListManifestsRequest) (*apiv1.ListManifestsResponse, error) {
	return &apiv1.ListManifestsResponse{Pods: d.manifests}, nil
}

// Exec shows the command, gives back its input, and exits with 3.
func (d *fakeAdmin) Exec(stream apiv1.Admin_ExecServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if err := startError(start.GetCommand()[0]); err != nil {
		return err
	}
	out := []byte(strings.Join(start.GetCommand(), " ") + "\n")
	for start.GetStdin() {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if r.GetCloseStdin() {
			break
		}
		out = append(out, r.GetStdin()...)
	}
	for _, m := range []*apiv1.ExecResponse{
		{Response: &apiv1.ExecResponse_Stdout{Stdout: out}},
		{Response: &apiv1.ExecResponse_Stderr{Stderr: []byte("oh\n")}},
		{Response: &apiv1.ExecResponse_ExitCode{ExitCode: 3}},
	} {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}
