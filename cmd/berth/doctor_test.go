package main

import (
	"strings"
	"testing"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

func TestDoctorSaysWhatToDo(t *testing.T) {
	d := startDaemon(t)
	if got := d.ok(t, "doctor"); !strings.Contains(got, "has all") {
		t.Errorf("nothing is missing: %s", got)
	}
	d.advice = []*apiv1.Advice{{What: "no swap", Do: "boot with it"}}
	if got := d.ok(t, "doctor"); !strings.Contains(got, "missing  no swap\n") || !strings.Contains(got, "→ boot with it") {
		t.Errorf("a feature: %s", got)
	}
	if got := d.ok(t, "doctor", "-o", "json"); !strings.Contains(got, `"needed": false`) {
		t.Errorf("as JSON: %s", got)
	}
	d.advice = append(d.advice, &apiv1.Advice{Needed: true, What: "no overlay", Do: "modprobe overlay"})
	if got := d.fails(t, "doctor"); !strings.Contains(got, "1 of the above must be mended") {
		t.Errorf("pods cannot run: %s", got)
	}
}
