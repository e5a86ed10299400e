package vm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/vm"
)

var (
	cuts  = flag.Int("cuts", 20, "power cuts")
	cache = flag.String("cache", "../../.cache/vm", "where root file systems are kept")
)

const (
	variants = 3 // images that are pulled in turn
	files    = 300
	large    = 10 << 20
)

// content is what image n has in its layers: busybox, a layer that all images
// have, and one of its own, in which sums has the hash of every file.
func content(t *testing.T, n int) images.Image {
	t.Helper()
	i, err := images.Busybox()
	must(t, err)
	shared, own := images.Layer{}, images.Layer{Compression: images.Zstd}
	r := rand.New(rand.NewPCG(1, 1))
	for f := range files {
		data := make([]byte, r.IntN(40<<10))
		fill(r, data)
		shared.Files = append(shared.Files, images.File{Name: fmt.Sprintf("shared/%d/%d", f%17, f), Data: data})
	}
	r = rand.New(rand.NewPCG(2, uint64(n)))
	big := make([]byte, large)
	fill(r, big)
	own.Files = append(own.Files, images.File{Name: "own/large", Data: big})
	for f := range files / 3 {
		data := make([]byte, r.IntN(10<<10))
		fill(r, data)
		own.Files = append(own.Files, images.File{Name: fmt.Sprintf("own/%d", f), Data: data})
	}
	var sums bytes.Buffer
	for _, l := range []images.Layer{shared, own} {
		for _, f := range l.Files {
			fmt.Fprintf(&sums, "%s  /%s\n", sha256sum(f.Data), f.Name)
		}
	}
	own.Files = append(own.Files, images.File{Name: "sums", Data: sums.Bytes()})
	i.Layers = append(i.Layers, shared, own)
	return i
}

// stage is what all boots share.
type stage struct {
	root  vm.Files
	tools string
	data  *vm.Disk
	refs  []string
	sums  map[string]string // reference → hash of its file of sums
}

func newStage(t *testing.T) *stage {
	t.Helper()
	bin := built(t)
	dir, err := filepath.Abs(*cache)
	must(t, err)
	s := &stage{sums: map[string]string{}}
	began := time.Now()
	s.root, err = vm.Debian().Make(t.Context(), dir)
	must(t, err)
	t.Logf("root file system: %s", time.Since(began))
	work := t.TempDir()
	reg := registry.Start(nil)
	t.Cleanup(reg.Close)
	_, port, err := net.SplitHostPort(reg.Host)
	must(t, err)
	for n := range variants {
		i := content(t, n)
		b, err := i.Build()
		must(t, err)
		repository := fmt.Sprintf("image%d", n)
		reg.Add(repository, "1", b)
		ref := "10.0.2.2:" + port + "/" + repository + ":1"
		s.refs = append(s.refs, ref)
		own := i.Layers[len(i.Layers)-1].Files
		s.sums[ref] = sha256sum(own[len(own)-1].Data)
	}
	config := filepath.Join(work, "berth.toml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "[image]\nplain_http = [\"10.0.2.2:%s\"]\n", port), 0o600))
	s.tools = filepath.Join(work, "tools.img")
	must(t, vm.MakeTools(t.Context(), s.tools, map[string]string{
		"berthd": filepath.Join(bin, "berthd"), "berth": filepath.Join(bin, "berth"), "berth-runtime": filepath.Join(bin, "berth-runtime"), "berth.toml": config,
	}))
	path := filepath.Join(work, "data.img")
	must(t, vm.MakeDisk(t.Context(), path, 1<<30, ""))
	s.data, err = vm.OpenDisk(path)
	must(t, err)
	t.Cleanup(func() { s.data.Close() })
	return s
}

// startBerth mounts the disk, whose journal the kernel replays, and starts Berth,
// again where it gives up, as systemd would: an emulated machine is slow.
const startBerth = `
mkdir -p /var/lib/berth && mount -t ext4 /dev/vdc /var/lib/berth || { dmesg | tail; exit 1; }
(while :; do berthd --standalone --config /tools/berth.toml; sleep 1; done) > /tmp/berthd.log 2>&1 &
for i in $(seq 600); do berth info > /dev/null 2>&1 && exit 0; sleep 0.2; done
cat /tmp/berthd.log; exit 1`

// pulling removes and pulls images, over and over, in the background: one after
// the other, so that the others are listed meanwhile, and then all, so that the
// layers that they share come again, too.
const pulling = `
(while :; do
	for ref in %[1]s; do berth rmi -f $ref && echo removed; berth pull -q $ref && echo pulled; done
	for ref in %[1]s; do berth rmi -f $ref && echo removed; done
	for ref in %[1]s; do berth pull -q $ref && echo pulled; done
done) > /tmp/pulling.log 2>&1 &`

func (s *stage) boot(t *testing.T) *vm.Machine {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	m, err := vm.Boot(ctx, vm.Options{Root: s.root, Tools: s.tools, Disks: []*vm.Disk{s.data}})
	must(t, err)
	t.Cleanup(m.Kill)
	booted := time.Since(began)
	if out, err := m.Run(ctx, startBerth); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("booted in %s, Berth answers after %s", booted.Round(time.Second), time.Since(began).Round(time.Second))
	return m
}

// TestNothingListedIsDamagedByPowerCuts pulls images while the power is cut at
// random moments, over one disk.
func TestNothingListedIsDamagedByPowerCuts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := newStage(t)
	m := s.boot(t)
	usual := s.pullAll(t, m)
	lost, listed := int64(0), 0
	for n := range *cuts {
		run(t, m, fmt.Sprintf(pulling, strings.Join(s.refs, " ")))
		after := time.Duration(r.Int64N(int64(usual * 3 / 2)))
		<-time.After(after)
		done, _ := m.Run(t.Context(), "cat /tmp/pulling.log")
		select {
		case <-s.data.StopAt(1 + r.IntN(24)):
		case <-time.After(20 * time.Second): // a large write is enough, too
		}
		m.Kill()
		cut, err := s.data.PowerCut(r)
		must(t, err)
		t.Logf("cut %d after %s, %d pulled, %d removed: %s", n+1, after.Round(time.Millisecond), strings.Count(done, "pulled"), strings.Count(done, "removed"), cut)
		lost += cut.Lost
		m = s.boot(t)
		listed += s.verify(t, m)
		s.pullAll(t, m)
	}
	t.Logf("%d power cuts lost %d KiB of unflushed writes; %d images were listed after them, all of them whole", *cuts, lost>>10, listed)
	m.Kill()
}

// verify looks at what a power cut has left, and returns how many images are
// listed. This disk loses nothing that was flushed, so nothing has to be repaired
// either: Berth flushes before it commits.
func (s *stage) verify(t *testing.T, m *vm.Machine) int {
	t.Helper()
	if bad := s.damage(t, m); len(bad) > 0 {
		out, err := m.Run(t.Context(), "berth check --verify --repair")
		t.Errorf("damaged: %q\nrepaired: %v\n%s", bad, err, out)
	}
	listed := s.listed(t, m)
	for _, ref := range listed {
		s.compare(t, m, ref)
	}
	return len(listed)
}

// damage returns what berth check --verify finds, beside what an interrupted pull
// has left for the next to go on from.
func (s *stage) damage(t *testing.T, m *vm.Machine) (bad []string) {
	t.Helper()
	out, err := m.Run(t.Context(), "berth check --verify -o json 2>/dev/null")
	start := strings.Index(out, "[")
	var found []struct{ Object, What string }
	if start < 0 || json.Unmarshal([]byte(out[start:]), &found) != nil {
		t.Fatalf("berth check --verify: %v: %s", err, out)
	}
	for _, p := range found {
		if !strings.Contains(p.What, "is used by nothing") {
			bad = append(bad, p.Object+": "+p.What)
		}
	}
	return bad
}

// listed returns the references of the images that are shown.
func (s *stage) listed(t *testing.T, m *vm.Machine) []string {
	t.Helper()
	out := run(t, m, "berth images -o json")
	var refs []string
	for _, ref := range s.refs {
		if strings.Contains(out, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// compare runs a container of the image that compares every file with its hash.
// It knows nothing of how Berth keeps layers.
func (s *stage) compare(t *testing.T, m *vm.Machine, ref string) {
	t.Helper()
	out, err := m.Run(t.Context(), fmt.Sprintf("berth run --rm --network host --pull never %s sh -c 'sha256sum -c /sums > /tmp/out; r=$?; grep -v OK$ /tmp/out; sha256sum /sums; exit $r'", ref))
	if err != nil || !strings.Contains(out, s.sums[ref]) {
		t.Errorf("%s is listed and damaged: %v\n%s", ref, err, out)
	}
}

// pullAll pulls every image, compares it, and wants Berth to find nothing wrong.
func (s *stage) pullAll(t *testing.T, m *vm.Machine) time.Duration {
	t.Helper()
	began := time.Now()
	run(t, m, "for ref in "+strings.Join(s.refs, " ")+"; do berth pull -q $ref || exit 1; done")
	took := time.Since(began)
	if got := s.listed(t, m); len(got) != len(s.refs) {
		t.Errorf("after the pulls %v are listed", got)
	}
	for _, ref := range s.refs {
		s.compare(t, m, ref)
	}
	if bad := s.damage(t, m); len(bad) > 0 {
		t.Errorf("after the pulls: %q", bad)
	}
	return took
}

func run(t *testing.T, m *vm.Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := m.Run(ctx, script)
	if err != nil {
		log, _ := m.Run(ctx, "tail -30 /tmp/berthd.log; dmesg | tail -20")
		t.Fatalf("%v\n%s", err, log)
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
