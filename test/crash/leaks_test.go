package crash

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	testnode "github.com/berth-run/berth/test/node"
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

// wantNothing fails the test where something is there that was not before.
func wantNothing(t *testing.T, before testnode.Snapshot) {
	t.Helper()
	eventually(t, func() error {
		if left := take(t).Left(before); len(left) > 0 {
			return fmt.Errorf("left over:\n%s", strings.Join(left[:min(len(left), 40)], "\n"))
		}
		return nil
	})
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
		if strings.Contains(text, " --state "+berth.State()) || !strings.Contains(string(groups), cgroup) {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "(")
		name, _, _ := strings.Cut(rest, ") ")
		all = append(all, fmt.Sprintf("%d (%s) %s", pid, name, text))
	}
	return all
}
