package limits

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

func TestAProcessIsLoweredToWhatMayBe(t *testing.T) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &own); err != nil {
		t.Fatal(err)
	}
	adj := -900
	asked := &specs.Process{
		OOMScoreAdj:  &adj,
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_SYS_BOOT"}},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 2000, Hard: 5000}, {Type: "RLIMIT_CORE", Hard: ^uint64(0)}},
	}
	for name, c := range map[string]struct {
		limits Limits
		adj    int
		caps   []string
		rlimit []specs.POSIXRlimit
	}{
		"all": {
			Limits{OOMScoreAdjMin: -1000, MayRaise: true, Capabilities: map[string]bool{"CAP_KILL": true, "CAP_SYS_BOOT": true}, OpenFiles: 9000},
			-900,
			[]string{"CAP_KILL", "CAP_SYS_BOOT"},
			asked.Rlimits,
		},
		"few files": {
			Limits{OOMScoreAdjMin: -1000, MayRaise: true, Capabilities: map[string]bool{"CAP_KILL": true}, OpenFiles: 1000},
			-900,
			[]string{"CAP_KILL"},
			[]specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000}, {Type: "RLIMIT_CORE", Hard: ^uint64(0)}},
		},
		"none": {
			Limits{OpenFiles: 1000},
			0, nil,
			[]specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000}, {Type: "RLIMIT_CORE", Hard: own.Max}},
		},
	} {
		got, err := c.limits.Process(asked)
		if err != nil {
			t.Fatal(err)
		}
		if *got.OOMScoreAdj != c.adj || !cmp.Equal(got.Capabilities.Bounding, c.caps) || !cmp.Equal(got.Rlimits, c.rlimit) {
			t.Errorf("%s: %d, %v, %v", name, *got.OOMScoreAdj, got.Capabilities.Bounding, got.Rlimits)
		}
	}
	if adj != -900 || asked.Rlimits[0].Hard != 5000 {
		t.Error("what was asked is changed")
	}
	if _, err := (&Limits{}).Process(&specs.Process{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_TEA"}}}); !errors.Is(err, errs.Invalid) {
		t.Errorf("an unknown limit: %v", err)
	}
}

func TestProbeKnowsThisMachine(t *testing.T) {
	l := Probe()
	if l.OpenFiles < 1024 || len(l.Capabilities)+len(l.Missing) < 40 {
		t.Errorf("%+v", l)
	}
}
