package spec_test

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/spec"
)

func BenchmarkContainer(b *testing.B) {
	in := input()
	security(in).Seccomp = &cri.SecurityProfile{}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := spec.Container(in); err != nil {
			b.Fatal(err)
		}
	}
}
