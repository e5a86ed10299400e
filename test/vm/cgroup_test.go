package vm_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/vm"
)

// Tests of test/e2e in which a machine with cgroup version 2 could be different from
// others, and those in which one whose cgroups systemd makes could be, too.
var (
	version2 = []string{
		"TestAContainerLivesThroughItsStates", "TestARunningContainerCanBeRemoved",
		"TestAnExecIsTheContainersOwn", "TestATimeoutKillsTheExecsTreeAlone", "TestExecsOfOneContainerRunAtOnce", "TestExecsLeaveNoCgroupsBehind",
		"TestLimitsAreTheKernelsAndCanBeChanged", "TestAnUpdateLeavesWhatItDoesNotName", "TestACreatedContainerCanBeUpdatedAndAnEndedOneCannot",
		"TestARefusedUpdateLeavesAllAsItWas", "TestMemoryInUseIsNotTakenAway", "TestUpdatedLimitsOutliveTheDaemon", "TestResourcesOfAPodOutliveTheDaemon",
		"TestUnifiedKeysAreWritten", "TestTheConfigurationsLimitsHoldForEveryContainer",
		"TestMemoryEndsOneContainerNotItsPod", "TestMemoryEndsAllOfAContainerIfAsked", "TestReasonsOfTheEnd", "TestDevicesAreGivenAndGuarded",
		"TestStatisticsTellWhatAContainerDoes", "TestStatisticsCountAPodsTraffic", "TestPodsThatShareACgroupHaveTheirOwnStatistics",
		"TestMetricsAreThoseThatWereAnnounced", "TestCgroupsLieInKubeletsOrInOurs", "TestAnEndLeavesNoProcessOnTheHost",
		"TestProcessesAreSharedAsAsked", "TestProcessesOfAUserNamespaceAreInThePodsCgroup", "TestAppArmorConfinesAsAsked",
	}
	systemds = append([]string{
		"TestSystemdTakesNothingFromAContainerWhenItReloads", "TestSystemdForgetsWhatWasRefused", "TestALogHasTheFormThatKubeletReads", "TestStopSendsTheSignalThenKills",
		"TestTooManyProcessesFailInTheContainerOnly", "TestPrivilegedMeansAllOfIt", "TestPathsAreMaskedAndReadOnly",
		"TestStatisticsOutliveTheDaemon", "TestStatsAndTopTellWhatAContainerDoes",
		"TestNamesAndStatesOutliveTheDaemon", "TestWhatHappensWithoutTheDaemonIsSeenAfterwards", "TestTheDaemonRestartsUnnoticed",
	}, version2...)
)

// TestBerthRunsOnVersion2 runs Berth where its users have it: on Debian's kernel,
// with cgroup version 2 and systemd.
func TestBerthRunsOnVersion2(t *testing.T) {
	bin := built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	m := boot(ctx, t, vm.Debian(), version2Tools(t, bin), vm.Options{Systemd: true, Memory: 2048})
	t.Run("cgroupfs", func(t *testing.T) { endToEnd(ctx, t, m, "", version2) })
	t.Run("systemd", func(t *testing.T) { endToEnd(ctx, t, m, "BERTH_TEST_MACHINE=1", systemds) })
	t.Run("crashes", func(t *testing.T) {
		crashes(ctx, t, m, "", "RunPodSandbox", "CreateContainer", "StartContainer", "ExecSync", "StopContainer")
	})
	t.Run("crashes below systemd", func(t *testing.T) {
		crashes(ctx, t, m, "BERTH_TEST_MACHINE=1", "StartContainer", "StopContainer", "RemovePodSandbox")
	})
	t.Run("units", func(t *testing.T) { units(ctx, t, m) })
}

// version2Tools are what the repository has: bin, config, contrib, the compiled tests
// of test/e2e and test/crash, and an image.
func version2Tools(t *testing.T, bin string) map[string]string {
	t.Helper()
	bring := map[string]string{"busybox.tar": filepath.Join(t.TempDir(), "busybox.tar")}
	for _, name := range []string{"e2e", "crash"} {
		bring[name+".test"] = compiled(t, name)
	}
	b, err := images.Busybox()
	must(t, err)
	archive, err := os.Create(bring["busybox.tar"])
	must(t, err)
	must(t, images.Archive(archive, "vm.local/busybox:1", b))
	must(t, archive.Close())
	for name, dir := range map[string]string{"bin": bin, "bin/cni": filepath.Join(bin, "cni"), "config": "../../config", "contrib": "../../contrib", "contrib/systemd": "../../contrib/systemd", "contrib/apparmor": "../../contrib/apparmor", "contrib/kubelet": "../../contrib/kubelet"} {
		files, err := os.ReadDir(dir)
		must(t, err)
		for _, f := range files {
			if f.Type().IsRegular() {
				bring[name+"/"+f.Name()] = filepath.Join(dir, f.Name())
			}
		}
	}
	return bring
}

// compiled are the tests of a package below test, as a program.
func compiled(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "seccomp", "-o", path, "github.com/berth-run/berth/test/"+name)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	return path
}

// crashes has everybody die once in the middle of each operation.
func crashes(ctx context.Context, t *testing.T, m *vm.Machine, environment string, operations ...string) {
	t.Helper()
	began := time.Now()
	out, err := m.Run(ctx, fmt.Sprintf(`
mkdir -p /tmp/in/test/crash && cd /tmp/in/test/crash || exit 1
CI=true BERTH_BIN=/tools/bin BERTH_TEST_SLOWER=10 %s timeout 900 /tools/crash.test -test.v -test.timeout 14m -test.run '^TestNothingIsLostWhenSomebodyDies$/^(%s)$' -rounds 1 > /tmp/crash.log 2>&1
failed=$?
grep -e '^ *--- ' -e 'the counter wrote' /tmp/crash.log
[ $failed = 0 ] || grep -v -e '^=== ' -e '--- PASS' /tmp/crash.log | tail -n 150
exit $failed`, environment, strings.Join(operations, "|")))
	died := strings.Count(out, "--- PASS: TestNothingIsLostWhenSomebodyDies/") - len(operations)
	t.Logf("%d died in %s", died, time.Since(began).Round(time.Second))
	if err != nil || died != 4*len(operations) || !strings.Contains(out, "all are there") {
		t.Errorf("%v\n%s", err != nil, out)
	}
}

// endToEnd runs tests of test/e2e inside. Those that are not there count as failed.
func endToEnd(ctx context.Context, t *testing.T, m *vm.Machine, environment string, names []string) {
	t.Helper()
	began := time.Now()
	out, err := m.Run(ctx, fmt.Sprintf(`
mkdir -p /tmp/in/test/e2e && cd /tmp/in/test/e2e || exit 1
CI=true BERTH_BIN=/tools/bin BERTH_TEST_SLOWER=10 %s timeout 1200 /tools/e2e.test -test.v -test.timeout 19m -test.run '^(%s)$' > /tmp/e2e.log 2>&1
failed=$?
grep -e '^--- ' /tmp/e2e.log
[ $failed = 0 ] || grep -v -e '^=== ' -e '^--- PASS' /tmp/e2e.log | tail -n 150
exit $failed`, environment, strings.Join(names, "|")))
	passed := 0
	for _, name := range names {
		if strings.Contains(out, "--- PASS: "+name+" (") {
			passed++
		} else {
			t.Errorf("%s did not pass", name)
		}
	}
	t.Logf("%d of %d tests passed in %s", passed, len(names), time.Since(began).Round(time.Second))
	if err != nil {
		t.Errorf("inside:\n%s", out)
	}
}

// await waits for both daemons, of which systemd knows that they run, not that
// berth-runtime answers.
const await = `
for i in $(seq 600); do [ -S /run/berth/runtime.sock ] && berth info > /dev/null 2>&1 && break; sleep 0.2; done
`

// units installs Berth as an administrator does, and has systemd end and start its
// processes while a container runs.
func units(ctx context.Context, t *testing.T, m *vm.Machine) {
	t.Helper()
	inside := func(script string) string {
		t.Helper()
		out, err := m.Run(ctx, script)
		if err != nil {
			log, _ := m.Run(ctx, "journalctl --no-pager -n 60 -u berthd -u berth-runtime")
			t.Fatalf("%v\n%s", err, log)
		}
		return strings.TrimSpace(out)
	}
	inside("/tools/contrib/install.sh install && systemctl enable --now berth-runtime berthd || exit 1" + await)
	inside("berth load -i /tools/busybox.tar && berth run -d --name web --network host --memory 64m vm.local/busybox:1 sh -c 'while :; do echo tick; sleep 0.2; done'")
	id := inside("berth ps -q")
	scope := inside("basename /sys/fs/cgroup/berth.slice/*/berth-" + id + "*.scope")
	for what, want := range map[string]string{"OOMPolicy": "continue", "Delegate": "yes", "TasksMax": "infinity", "MemoryMax": "67108864", "MemorySwapMax": "0"} {
		if got := inside("systemctl show -P " + what + " " + scope); got != want {
			t.Errorf("%s of the scope is %s, want %s", what, got, want)
		}
	}
	const confined = "berth-default (enforce)"
	if out := inside("berth exec web cat /proc/1/attr/current /proc/self/attr/current"); out != confined+"\n"+confined {
		t.Errorf("AppArmor: %q, want the profile that was installed", out)
	}
	pid := inside("cat /sys/fs/cgroup/berth.slice/*/" + scope + "/cgroup.procs | sort -n | head -n 1")
	for _, done := range []string{
		"systemctl restart berthd",
		"systemctl restart berth-runtime",
		"systemctl reload berth-runtime && sleep 1",
		"kill -9 $(systemctl show -P MainPID berthd) && sleep 3",
		"kill -9 $(pgrep -P $(systemctl show -P MainPID berth-runtime))",
		"kill -9 $(systemctl show -P MainPID berth-runtime) && sleep 3",
		"systemctl daemon-reload",
		"systemctl daemon-reexec",
		"systemctl stop berthd berth-runtime && systemctl start berthd",
	} {
		inside("{ " + done + "; } || exit 1" + await)
		lines := inside("berth logs web | wc -l")
		inside("kill -0 " + pid)
		if out := inside("berth exec web echo here"); out != "here" {
			t.Errorf("after %s: exec says %q", done, out)
		}
		inside("for i in $(seq 300); do [ $(berth logs web | wc -l) -gt " + lines + " ] && exit 0; sleep 0.2; done; echo the log has ended; exit 1")
		if got := inside("systemctl is-active berthd berth-runtime"); got != "active\nactive" {
			t.Errorf("after %s: units are %q", done, got)
		}
	}
	inside("berth rm -f web && berth check")
	if left := inside("find /sys/fs/cgroup/berth.slice -mindepth 1 -type d; systemctl list-units --no-legend --plain --state=failed 'berth*'"); left != "" {
		t.Errorf("left: %s", left)
	}
	inside("/tools/contrib/install.sh uninstall")
}
