package image_test

import (
	"testing"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
)

func BenchmarkPullBusybox(b *testing.B) {
	i, err := images.Busybox()
	if err != nil {
		b.Skip(err)
	}
	reg := serve(b, nil)
	ref := reg.Put("busybox", "latest", build(b, i))
	s := service(b)
	for b.Loop() {
		if _, err := s.Pull(b.Context(), image.PullRequest{Ref: ref}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Remove(b.Context(), ref); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkMount(b *testing.B) {
	s := service(b)
	i := loaded(b, s, "app:v1", sample("x"))
	for b.Loop() {
		if _, err := s.Mount(b.Context(), image.MountRequest{ContainerID: "c", Image: i.ID}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Unmount(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkGet(b *testing.B) {
	s := service(b)
	loaded(b, s, "app:v1", sample("x"))
	for b.Loop() {
		if _, err := s.Get("app:v1"); err != nil {
			b.Fatal(err)
		}
	}
}
