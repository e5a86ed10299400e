package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

func TestUsageAddsUp(t *testing.T) {
	got := usageOf(&apiv1.DiskUsageResponse{
		ImagesSize: 100, ImagesReclaimable: 50,
		Images: []*apiv1.ImageUsage{
			{UniqueSize: 30, SharedSize: 20, Containers: 2}, {UniqueSize: 50, SharedSize: 20},
		},
		Containers: []*apiv1.ContainerUsage{{Size: 3, Running: true}, {Size: 4}},
		Volumes:    []*apiv1.VolumeUsage{{Size: 5, Containers: 1}, {Size: 6}},
	})
	want := []used{
		{"Images", 2, 1, 100, 50}, {"Containers", 2, 1, 7, 4}, {"Local Volumes", 2, 1, 11, 6},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
