package crash

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	testnode "github.com/berth-run/berth/test/node"
	"github.com/berth-run/berth/test/testutil"
)

// take looks at the machine, at all of its processes, and at Berth's files.
func take(t *testing.T) testnode.Snapshot {
	t.Helper()
	s, err := testnode.Take(filepath.Join(berth.Dir, "nothing"))
	must(t, err)
	for _, name := range processes("") {
		s["process "+name] = true
	}
	for _, dir := range []string{"data", "run", "netns"} {
		err := filepath.WalkDir(filepath.Join(berth.Dir, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what goes away while we look is no leak
			}
			s["file "+path] = true
			if e.IsDir() && strings.Count(path, "/") > strings.Count(berth.Dir, "/")+3 {
				return fs.SkipDir // a line for each object is enough
			}
			return nil
		})
		must(t, err)
	}
	return s
}

// leftLimit is for processes on their way out: one that was killed while it made
// its mount namespace lets go of the overlays in its copy, and who is the last to
// do so waits for a sync of the whole disk.
const leftLimit = time.Minute

// wantNothing fails the test where something is there that was not before.
func wantNothing(t *testing.T, before testnode.Snapshot) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(leftLimit))
	defer cancel()
	must(t, testnode.Until(ctx, func() error {
		if left := take(t).Left(before); len(left) > 0 {
			left = left[:min(len(left), 40)]
			for n := range left {
				left[n] += state(left[n])
			}
			return fmt.Errorf("left over:\n%s", strings.Join(left, "\n"))
		}
		return nil
	}))
}

// state says what a process that is left over does, and whose child it is.
func state(left string) string {
	pid, ok := strings.CutPrefix(left, "process ")
	if !ok {
		return ""
	}
	pid, _, _ = strings.Cut(pid, " ")
	stat, _ := os.ReadFile("/proc/" + pid + "/stat")
	stack, _ := os.ReadFile("/proc/" + pid + "/stack")
	_, rest, _ := strings.Cut(string(stat), ") ")
	return fmt.Sprintf(" [state and parent %.8s, in the kernel %q]", rest, stack)
}

// processes lists those that the tests see, without Berth's own two programs,
// and of the given cgroup alone where one is given. Zombies count.
func processes(cgroup string) []string {
	var all []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		status, err := os.ReadFile(dir + "/stat")
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		text := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		groups, _ := os.ReadFile(dir + "/cgroup")
		if foreign(string(groups)) {
			continue
		}
		if strings.Contains(text, " --state "+berth.State()) || !strings.Contains(string(groups), cgroup) {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "(")
		name, _, _ := strings.Cut(rest, ") ")
		all = append(all, fmt.Sprintf("%d (%s) %s", pid, name, text))
	}
	return all
}

// foreign tells processes of a machine that systemd runs, as their cgroups say, from
// those that the tests have started: kernel threads, systemd, its services.
func foreign(groups string) bool {
	if !systemd {
		return false
	}
	own, _ := os.ReadFile("/proc/self/cgroup")
	return groups != string(own) && (groups == "0::/\n" || strings.HasPrefix(groups, "0::/init.scope") || strings.HasPrefix(groups, "0::/system.slice/"))
}
