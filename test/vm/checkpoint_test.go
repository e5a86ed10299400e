package vm_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/vm"
)

// count counts in memory, in its output and in a file of its root file system.
const count = `
import time
n = 0
while True:
    n += 1
    print(n, flush=True)
    with open("/count", "w") as f:
        f.write(str(n))
    time.sleep(0.2)
`

// withCRIU is a machine whose CRIU and kernel go together: Debian's next has none.
func withCRIU() vm.Root {
	r := vm.Debian("criu", "python3-minimal")
	r.Suite = "bookworm"
	return r
}

// counterImage is busybox with a program for the Python of the machine, which a
// volume brings.
func counterImage(t *testing.T) string {
	t.Helper()
	i, err := images.Busybox()
	must(t, err)
	i.Layers = append(i.Layers, images.Layer{Files: []images.File{
		{Name: "lib", Type: images.Symlink, Link: "usr/lib"},
		{Name: "lib64", Type: images.Symlink, Link: "usr/lib64"},
		{Name: "count.py", Data: []byte(count)},
	}})
	path := filepath.Join(t.TempDir(), "counter.tar")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, images.Archive(f, "counter:1", i))
	return path
}

// checkpointLibrary begins every script.
const checkpointLibrary = `
at() { for i in $(seq 50); do n=$(timeout 10 berth exec counter cat /count 2>/dev/null); [ -n "$n" ] && echo $n && return; sleep 0.2; done; return 1; }
upTo() { for i in $(seq 100); do [ "$(at)" -gt "$1" ] && return; sleep 0.2; done; echo "it does not count on from $1"; return 1; }
answers() { for i in $(seq 600); do berth info > /dev/null 2>&1 && return; sleep 0.2; done; return 1; }
paused() { for i in $(seq 1000); do grep -rqx 1 --include=cgroup.freeze /sys/fs/cgroup && return; sleep 0.02; done; echo "nothing is paused"; return 1; }
runtimes() { for p in $(pidof berth-runtime); do read x x x parent x < /proc/$p/stat; grep -q berth-runtime /proc/$parent/comm && echo "$p"; done; }
`

var checkpointSteps = []struct{ name, script string }{
	{"it goes on beside and after", `before=$(at)
berth checkpoint counter --to /tmp/dump || exit 1
upTo $((before+3)) || exit 1
last=$(at); berth rm -f counter > /dev/null || exit 1
berth restore /tmp/dump || exit 1
upTo $before || exit 1
first=$(berth logs counter | head -n 1)
[ "$first" -gt 1 ] && [ "$first" -ge $before ] && [ "$first" -le $last ] || { echo "checkpointed after $before, ended at $last, went on with $first"; exit 1; }
upTo $last || exit 1
berth logs counter | awk 'NR > 1 && $1 != last + 1 { exit 1 } { last = $1 }' || { berth logs counter; exit 1; }
echo "checkpointed after $before, ended at $last, went on with $first to $(at)"`},
	{"what is restored is checkpointed again", `berth checkpoint counter --to /tmp/again || exit 1
before=$(at); berth rm -f counter > /dev/null && berth restore /tmp/again || exit 1
upTo $before || exit 1
[ "$(berth logs counter | head -n 1)" -gt 1 ]`},
	{"what does not fit is refused", `berth rm -f counter > /dev/null
cp -r /tmp/dump /tmp/other; sed -i 's/count.py/other.py/' /tmp/other/pod.json
berth restore /tmp/other 2>&1 | grep 'args are not those of the checkpoint' || exit 1
cp -r /tmp/dump /tmp/link; rm /tmp/link/checkpoint/0/rootfs-diff.tar; ln -s /etc/passwd /tmp/link/checkpoint/0/rootfs-diff.tar
berth restore /tmp/link 2>&1 | grep 'symbolic links' || exit 1
cp -r /tmp/dump /tmp/torn; for f in /tmp/torn/checkpoint/0/checkpoint/pages-*.img; do : > $f; done
timeout 15 berth restore /tmp/torn && exit 1 # CRIU waits for pages for ever
for i in $(seq 100); do [ -z "$(berth ps -aq)" ] && break; berth rm -f counter > /dev/null 2>&1; sleep 0.5; done
left=$(berth ps -aq; berth pods; ls /var/lib/berth/containers; grep criu /proc/mounts; ls /run/berth/runtime/engine)
[ "$(echo "$left" | grep -vc '^[A-Z]')" = 0 ] || { echo "$left"; exit 1; }
berth restore /tmp/dump && upTo $(at)`},
	{"a killed berthd leaves nothing paused", `berth checkpoint counter --to /tmp/dump2 &
paused || exit 1
kill -9 $(pidof berthd); wait; answers || exit 1
upTo $(at)`},
	{"a killed worker leaves nothing paused", `berth checkpoint counter --to /tmp/dump3 &
paused || exit 1
kill -9 $(runtimes); wait
upTo $(at) && upTo $(at)`},
}

// TestARestoredProcessCountsOn checkpoints a Python process that counts, removes it
// with its pod, restores both, and sees the count go on: in its memory, in its file
// and in its log. What is wrong is refused, and leaves nothing.
func TestARestoredProcessCountsOn(t *testing.T) {
	bin := built(t)
	m := boot(t.Context(), t, withCRIU(), map[string]string{
		"berthd": filepath.Join(bin, "berthd"), "berth": filepath.Join(bin, "berth"), "berth-runtime": filepath.Join(bin, "berth-runtime"),
		"counter.tar": counterImage(t),
	}, vm.Options{Memory: 1536})
	run(t, m, checkpointLibrary+`mkdir -p /var/lib/berth && mount -t tmpfs tmpfs /var/lib/berth
(while :; do berthd --standalone; sleep 1; done) > /tmp/berthd.log 2>&1 &
answers && berth load -i /tools/counter.tar && berth run -d --name counter -v /usr:/usr:ro counter:1 python3 -u /count.py && upTo 5`)
	for _, step := range checkpointSteps {
		t.Run(step.name, func(t *testing.T) { t.Log(run(t, m, checkpointLibrary+step.script)) })
	}
}

// Tests of test/e2e that only a machine with CRIU runs.
var checkpoints = []string{
	"TestThePodsContainersAreCheckpointedAtOnceAndGoOn", "TestACheckpointOfAContainerIsAWholeArchive", "TestAContainerWithATerminalIsCheckpointed",
	"TestContainersThatShareProcessesAreCheckpointed", "TestWhatCannotBeCheckpointedGoesOn", "TestACheckpointThatIsGivenUpLeavesNothing", "TestACheckpointSaysNothingOfWhatIsMade",
	"TestADamagedCheckpointLeavesNothing",
}

// grouped are those of them in which who makes the cgroups counts.
var grouped = []string{"TestThePodsContainersAreCheckpointedAtOnceAndGoOn", "TestContainersThatShareProcessesAreCheckpointed", "TestACheckpointThatIsGivenUpLeavesNothing"}

// TestCheckpointsOverCRI has pods checkpointed and restored as kubelet does it, with
// cgroups of both drivers.
func TestCheckpointsOverCRI(t *testing.T) {
	bin := built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	m := boot(ctx, t, withCRIU(), version2Tools(t, bin), vm.Options{Systemd: true, Memory: 2048})
	run(t, m, "mount -t tmpfs tmpfs /tmp")
	t.Run("cgroupfs", func(t *testing.T) { endToEnd(ctx, t, m, "", grouped) })
	t.Run("systemd", func(t *testing.T) { endToEnd(ctx, t, m, "BERTH_TEST_MACHINE=1", checkpoints) })
}
