package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// open starts a Service on f. The caller closes it.
func open(t *testing.T, root string, f *fakeCRI) *Service {
	t.Helper()
	s, err := Open(t.Context(), Deps{Root: root, NodeName: "node", Pods: f, Containers: f, Images: f})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t *testing.T, s *Service, manifest string) *apiv1.ApplyResponse {
	t.Helper()
	r, err := s.Apply(t.Context(), &apiv1.ApplyRequest{Manifest: []byte(manifest)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func only(t *testing.T, s *Service) *apiv1.ManifestStatus {
	t.Helper()
	l, err := s.List(t.Context())
	if err != nil || len(l.Pods) != 1 {
		t.Fatalf("got %v, %v", l, err)
	}
	return l.Pods[0]
}

func pod(spec string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: web, uid: u-1}\nspec:\n" + spec
}

func TestCrashingContainerIsRestartedWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.images["busybox:1"] = true
		f.life["a"] = ending{after: time.Millisecond, code: 1} // not while the worker looks
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod("  containers: [{name: a, image: 'busybox:1'}]\n"))
		time.Sleep(25 * time.Minute)
		want := "0s Start a\n1s Start a\n11s Start a\n31s Start a\n1m11s Start a\n2m31s Start a\n5m11s Start a\n10m11s Start a\n15m11s Start a\n20m11s Start a"
		if d := cmp.Diff(want, f.log("Start a")); d != "" {
			t.Error(d)
		}
		st := only(t, s)
		if st.Phase != "Running" || st.Reason != "CrashLoopBackOff" || st.Restarts < 8 {
			t.Errorf("got %v", st)
		}
	})
}

func TestLongRunForgetsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.images["busybox:1"] = true
		f.life["a"] = ending{after: 11*time.Minute - 500*time.Millisecond, code: 1}
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod("  containers: [{name: a, image: 'busybox:1'}]\n"))
		time.Sleep(34 * time.Minute)
		want := "0s Start a\n11m0s Start a\n22m0s Start a\n33m0s Start a"
		if d := cmp.Diff(want, f.log("Start a")); d != "" {
			t.Error(d)
		}
	})
}

func TestRestartPolicyDecides(t *testing.T) {
	for _, tc := range []struct {
		policy string
		code   int32
		reboot bool // before it ends
		phase  string
		starts int
	}{
		{"Never", 0, false, "Succeeded", 1},
		{"Never", 3, false, "Failed", 1},
		{"OnFailure", 0, false, "Succeeded", 1},
		{"OnFailure", 1, false, "Running", 2},
		{"Always", 0, false, "Running", 2},
		{"Never", 0, true, "Failed", 1},
		{"OnFailure", 0, true, "Running", 2},
		{"Always", 0, true, "Running", 2},
	} {
		t.Run(fmt.Sprint(tc.policy, " ", tc.code, " ", tc.reboot), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeCRI()
				f.images["busybox:1"] = true
				f.life["a"] = ending{code: tc.code}
				if tc.reboot {
					f.life["a"] = ending{after: time.Hour}
				}
				s := open(t, t.TempDir(), f)
				defer s.Close()
				apply(t, s, pod("  restartPolicy: "+tc.policy+"\n  containers: [{name: a, image: 'busybox:1'}]\n"))
				time.Sleep(8 * time.Second)
				if tc.reboot {
					time.Sleep(time.Second / 2) // not while the worker looks
					f.reboot()
					time.Sleep(8 * time.Second)
				}
				if st := only(t, s); st.Phase != tc.phase {
					t.Errorf("phase %s, want %s", st.Phase, tc.phase)
				}
				if n := strings.Count(f.log("Start a"), "Start"); n != tc.starts {
					t.Errorf("%d starts, want %d", n, tc.starts)
				}
				if over := strings.Contains(f.log("StopPod"), "pod1"); !tc.reboot && over != (tc.phase != "Running") {
					t.Errorf("sandbox stopped: %v", over)
				}
			})
		})
	}
}

func TestWhatHasSucceededStaysSoAfterAReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.images["i:1"] = true
		f.life["done"], f.life["other"] = ending{after: time.Second}, ending{after: time.Hour}
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod("  restartPolicy: OnFailure\n  containers: [{name: done, image: 'i:1'}, {name: other, image: 'i:1'}]\n"))
		for range 2 {
			time.Sleep(time.Minute + 200*time.Millisecond) // not while the worker looks
			f.reboot()
		}
		time.Sleep(2 * time.Hour)
		if done, other := strings.Count(f.log("Start"), "done"), strings.Count(f.log("Start"), "other"); done != 1 || other != 3 {
			t.Errorf("started %d and %d times\n%s", done, other, f.log(""))
		}
		if st := only(t, s); st.Phase != "Succeeded" || st.Containers[0].State != "terminated" {
			t.Errorf("got %v", st)
		}
	})
}

func TestInitContainersGoInOrderAndSidecarsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.images["i:1"] = true
		f.life["first"] = ending{after: 5 * time.Second}
		f.life["last"] = ending{after: 5 * time.Second}
		f.life["main"] = ending{after: 10 * time.Second}
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod(`  restartPolicy: Never
  initContainers:
  - {name: first, image: 'i:1'}
  - {name: side, image: 'i:1', restartPolicy: Always}
  - {name: last, image: 'i:1'}
  containers: [{name: main, image: 'i:1'}]
`))
		time.Sleep(time.Minute)
		want := "0s Start first\n5s Start side\n5s Start last\n11s Start main"
		got := f.log("Start ")
		if order(got) != order(want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if st := only(t, s); st.Phase != "Succeeded" || !strings.Contains(f.log("Stop side"), "30") {
			t.Errorf("got %v\n%s", st, f.log(""))
		}
	})
}

// order leaves the names of a log's calls.
func order(log string) string {
	var names []string
	for line := range strings.SplitSeq(log, "\n") {
		names = append(names, line[strings.LastIndexByte(line, ' ')+1:])
	}
	return strings.Join(names, " ")
}

func TestFailedInitContainerEndsAPodThatNeverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.images["i:1"] = true
		f.life["init"] = ending{code: 2}
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod("  restartPolicy: Never\n  initContainers: [{name: init, image: 'i:1'}]\n  containers: [{name: main, image: 'i:1'}]\n"))
		time.Sleep(5 * time.Second)
		if st := only(t, s); st.Phase != "Failed" || f.log("Start main") != "" {
			t.Errorf("got %v\n%s", st, f.log(""))
		}
	})
}

func TestFailedPullIsTriedAgainLaterAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.fail["Pull nope"] = errors.New("registry says no")
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod("  containers: [{name: a, image: nope}]\n"))
		time.Sleep(35 * time.Second)
		st := only(t, s)
		if st.Phase != "Pending" || st.Reason != "ImagePullBackOff" || !strings.Contains(st.Message, "registry says no") {
			t.Errorf("got %v", st)
		}
		if got := f.log("Pull"); got != "0s Pull nope\n10s Pull nope\n30s Pull nope" {
			t.Errorf("got %s", got)
		}
		f.mu.Lock()
		delete(f.fail, "Pull nope")
		f.mu.Unlock()
		time.Sleep(time.Minute)
		if st := only(t, s); st.Phase != "Running" || st.Reason != "" {
			t.Errorf("after the registry has come back: %v", st)
		}
	})
}

func TestRestartedDaemonGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, root := newFakeCRI(), t.TempDir()
		f.images["i:1"] = true
		s := open(t, root, f)
		apply(t, s, pod("  containers: [{name: a, image: 'i:1'}]\n"))
		time.Sleep(3 * time.Second)
		s.Close()
		before := f.log("")
		s = open(t, root, f)
		defer s.Close()
		time.Sleep(10 * time.Second)
		if d := cmp.Diff(before, f.log("")); d != "" {
			t.Errorf("a restart did something: %s", d)
		}
		if st := only(t, s); st.Phase != "Running" {
			t.Errorf("got %v", st)
		}
		// The sandbox goes away under it: all begins anew.
		f.mu.Lock()
		f.pods["pod1"].State = 1
		f.mu.Unlock()
		time.Sleep(3 * time.Second)
		if got := f.log("RunPod"); strings.Count(got, "RunPod") != 2 || strings.Count(f.log("Create a 1"), "Create") != 1 {
			t.Errorf("got %s", f.log(""))
		}
	})
}

func TestApplyTellsWhatItDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.images["i:1"], f.images["i:2"] = true, true
		root := t.TempDir()
		s := open(t, root, f)
		defer s.Close()
		for _, step := range []struct{ image, action string }{{"i:1", "created"}, {"i:1", "unchanged"}, {"i:2", "replaced"}} {
			r := apply(t, s, pod("  terminationGracePeriodSeconds: 7\n  containers: [{name: a, image: '"+step.image+"'}]\n"))
			if r.Applied[0].Action != step.action {
				t.Errorf("image %s: %s, want %s", step.image, r.Applied[0].Action, step.action)
			}
			time.Sleep(3 * time.Second)
		}
		r, err := s.Delete(t.Context(), &apiv1.DeleteManifestRequest{Manifest: []byte(pod("") + "---\nmetadata: {name: other}\n")})
		if err != nil || len(r.Deleted) != 1 || len(r.Missing) != 1 {
			t.Errorf("delete: %v, %v", r, err)
		}
		if len(f.pods)+len(f.containers) != 0 || strings.Count(f.log("Stop a 7"), "Stop") != 2 {
			t.Errorf("left %d pods, %d containers\n%s", len(f.pods), len(f.containers), f.log(""))
		}
		left, err := filepath.Glob(root + "/*/*/*")
		if err != nil || len(left) != 0 {
			t.Errorf("left on disk: %v, %v", left, err)
		}
	})
}

func TestDeleteGivesUpAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		f.fail["RunPod web"] = errors.New("no addresses left")
		s := open(t, t.TempDir(), f)
		defer s.Close()
		apply(t, s, pod("  containers: [{name: a, image: i}]\n"))
		time.Sleep(5 * time.Second)
		if st := only(t, s); st.Reason != "FailedCreatePodSandBox" || !strings.Contains(st.Message, "no addresses left") {
			t.Errorf("got %v", st)
		}
		if _, err := s.Delete(t.Context(), &apiv1.DeleteManifestRequest{Pods: []*apiv1.PodName{{Name: "web"}}}); err != nil {
			t.Error(err)
		}
	})
}

func TestBadRecordIsSetAside(t *testing.T) {
	root := t.TempDir()
	dir := store{root}.podsDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "default_web.json"), []byte(`{"version":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, root, newFakeCRI())
	defer s.Close()
	if l, err := s.List(t.Context()); err != nil || len(l.Pods) != 0 {
		t.Errorf("got %v, %v", l, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "default_web.json.corrupt")); err != nil {
		t.Error(err)
	}
}

func TestOneStuckPodKeepsNoOtherFromItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		labels := map[string]string{apiv1.LabelOwner: apiv1.OwnerRun, apiv1.LabelPodUID: "u"}
		for range 2 {
			runPodOfRun(t, f, labels)
		}
		f.fail["StopPod pod1"], f.fail["StopPod pod3"] = errors.New("busy"), errors.New("busy")
		s := open(t, t.TempDir(), f)
		defer s.Close()
		time.Sleep(time.Second)
		if got := f.log("StopPod"); strings.Count(got, "StopPod") != 2 {
			t.Errorf("got %s", got)
		}
	})
}

func TestPodOfRunEndsWithItsContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCRI()
		s := open(t, t.TempDir(), f)
		defer s.Close()
		for _, remove := range []string{"", "true"} {
			labels := map[string]string{apiv1.LabelOwner: apiv1.OwnerRun, apiv1.LabelPodUID: "u"}
			if remove != "" {
				labels[apiv1.LabelRemove] = remove
			}
			runPodOfRun(t, f, labels)
		}
		time.Sleep(time.Second)
		s.Notify()
		synctest.Wait()
		if got := order(f.log("StopPod")) + "|" + order(f.log("RemovePod")); got != "pod1 pod3|pod3" && got != "pod3 pod1|pod3" {
			t.Errorf("got %s", got)
		}
	})
}
