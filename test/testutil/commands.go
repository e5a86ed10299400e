package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Commands returns the paths of the OCI runtimes that tests let make containers.
func Commands(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{"crun", "runc"} {
		path, err := FindCommand(name, t.TempDir())
		Need(t, err == nil, name)
		all[name] = path
	}
	return all
}

// FindCommand returns the path of an OCI runtime. crun refuses a host that has both
// versions of cgroups with controllers: there it gets a script, in dir, which shows
// it version 1 alone.
func FindCommand(name, dir string) (string, error) {
	path, err := exec.LookPath(name)
	const unified = "/sys/fs/cgroup/unified"
	controllers, _ := os.ReadFile(unified + "/cgroup.controllers")
	if err != nil || name != "crun" || strings.TrimSpace(string(controllers)) == "" {
		return path, err
	}
	script := "#!/bin/sh\nexec unshare -m --propagation unchanged sh -c 'mount --make-private /sys/fs/cgroup; umount " + unified + "; exec " + path + " \"$@\"' crun \"$@\"\n"
	path = filepath.Join(dir, "crun")
	return path, os.WriteFile(path, []byte(script), 0o755)
}
