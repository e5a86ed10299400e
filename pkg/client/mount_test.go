package client

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func TestParseMount(t *testing.T) {
	for s, want := range map[string]Volume{
		"type=image,source=ghcr.io/org/model:1,target=/m":           {Image: "ghcr.io/org/model:1", Path: "/m", ReadOnly: true},
		"type=image,src=m,dst=/m/,subpath=weights/1.bin":            {Image: "m", Path: "/m", SubPath: "weights/1.bin", ReadOnly: true},
		"type=image,source=m@sha256:ab,target=/m,image-subpath=a=b": {Image: "m@sha256:ab", Path: "/m", SubPath: "a=b", ReadOnly: true},
		"type=bind,source=/srv,target=/a,readonly":                  {HostPath: "/srv", Path: "/a", ReadOnly: true},
		"type=bind,source=site,destination=/a,ro=false":             {HostPath: "/home/me/site", Path: "/a"},
		"type=bind,source=/srv,target=/a,bind-propagation=rshared":  {HostPath: "/srv", Path: "/a", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		"source=data,target=/a":                                     {Name: "data", Path: "/a"},
		"type=volume,source=data,target=/a,ro=1":                    {Name: "data", Path: "/a", ReadOnly: true},
	} {
		got, err := ParseMount(s, "/home/me")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", s, err, diff)
		}
	}
	for _, s := range []string{
		"", "type=image,target=/m", "type=image,source=m", "type=image,source=m,target=m", "type=image,source=m,target=/", "type=tmpfs,target=/m",
		"type=bind,target=/m", "type=bind,source=/a,target=/m,subpath=x", "type=volume,source=/a,target=/m", "type=image,source=m,target=/m,bind-propagation=rslave",
		"type=bind,source=/a,target=/m,bind-propagation=odd", "type=bind,source=/a,target=/m,ro=maybe", "type=image,source=m,target=/m,size=1", "type=image,source=m,target=/m,",
	} {
		if v, err := ParseMount(s, "/"); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %+v, %v", s, v, err)
		}
	}
}

func TestVolumesOfImagesAreMountedByID(t *testing.T) {
	o := &RunOptions{Volumes: []Volume{{Image: "model", Path: "/m", SubPath: "a", ReadOnly: true}, {Name: "data", Path: "/d"}}}
	got := o.mounts(place{volumes: map[string]string{"data": "/var/data"}, images: map[string]string{"model": "sha256:ab"}})
	want := []*runtimeapi.Mount{
		{Image: &runtimeapi.ImageSpec{Image: "sha256:ab", UserSpecifiedImage: "model"}, ImageSubPath: "a", ContainerPath: "/m", Readonly: true},
		{HostPath: "/var/data", ContainerPath: "/d"},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
