package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

// kills is how often berthd dies in the middle of a pull.
const kills = 50

// TestNothingListedIsDamagedWhenPullsDie kills berthd at random moments of one
// pull after the other.
func TestNothingListedIsDamagedWhenPullsDie(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &stage{rand: rand.New(rand.NewPCG(seed, 1)), image: serveSlowly(t, noise(1), noise(2))}
	s.pods[0] = started(t, cri.NamespaceMode_NODE)
	image := &cri.ImageSpec{Image: s.image}
	usual := s.measure(t, operation{name: "pull", ready: pullImage})
	listed, failed := 0, 0
	for range kills {
		c := pullImage(t, s)
		died := make(chan error, 1)
		after := time.Duration(s.rand.Int64N(int64(usual)))
		time.AfterFunc(after, func() { died <- berth.Kill() })
		if err := c.do(t.Context()); err != nil {
			failed++
		}
		must(t, <-died)
		must(t, berth.Start())
		wantVerified(t)
		r, err := berth.Images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: image})
		must(t, err)
		if r.Image != nil { // verify runs a container on it, and removes it
			listed++
		} else if err := c.do(t.Context()); err != nil {
			t.Fatalf("the pull after the death: %v", err)
		}
		wantVerified(t)
		c.verify()
	}
	t.Logf("of %d pulls %d failed; %d images were listed after the death, all of them whole", kills, failed, listed)
	if failed < kills/4 {
		t.Errorf("only %d of %d pulls were hit", failed, kills)
	}
}

// noise is a layer of two megabytes that do not compress.
func noise(seed uint64) images.Layer {
	data := make([]byte, 2<<20)
	r := rand.New(rand.NewPCG(seed, seed))
	for n := range data {
		data[n] = byte(r.Uint32())
	}
	return images.Layer{Files: []images.File{{Name: fmt.Sprintf("noise/%d", seed), Data: data}}}
}

// wantVerified wants every byte that is kept to be right. What a pull has left
// half-way may be there.
func wantVerified(t *testing.T) {
	t.Helper()
	out, err := berth.Command(t.Context(), "check", "--verify", "-o", "json").Output() // it fails where it finds something
	var found []struct{ Object, What string }
	if bad := json.Unmarshal(out, &found); bad != nil {
		t.Fatalf("berth check --verify: %v, %v: %s", bad, err, out)
	}
	for _, p := range found {
		if !strings.Contains(p.What, "is used by nothing") {
			t.Errorf("%s: %s", p.Object, p.What)
		}
	}
}
