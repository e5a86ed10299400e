package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

func security(c *cri.ContainerConfig) *cri.LinuxContainerSecurityContext {
	return c.Linux.SecurityContext
}

// peopled is an image with users and groups of its own.
func peopled(t *testing.T, user string) string {
	return variant(t, func(i *images.Image) {
		i.Config.User = user
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{
			{Name: "etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nada:x:1234:100:Ada:/home/ada:/bin/sh\n4294967297:x:0:0:trap:/:/bin/sh\n")},
			{Name: "etc/group", Data: []byte("root:x:0:\nusers:x:100:\nwheel:x:10:ada\nmath:x:11:bob,ada\nother:x:12:bob\n")},
		}})
	})
}

// whoami prints user, group, all groups and the home directory.
const whoami = `echo "$(id -u) $(id -g) $(id -G) $HOME"`

func TestTheUserIsTheConfigurationsOrTheImages(t *testing.T) {
	plain, byName, byNumber, byBoth := peopled(t, ""), peopled(t, "ada"), peopled(t, "1234"), peopled(t, "77:math")
	number := func(n int64) *cri.Int64Value { return &cri.Int64Value{Value: n} }
	p := runPod(t)
	for name, c := range map[string]struct {
		image  string
		change func(*cri.LinuxContainerSecurityContext)
		want   string
	}{
		"root":               {plain, nil, "0 0 0 /root"},
		"image's name":       {byName, nil, "1234 100 100 10 11 /home/ada"},
		"image's number":     {byNumber, nil, "1234 100 100 10 11 /home/ada"},
		"image's group":      {byBoth, nil, "77 11 11 /"},
		"number":             {plain, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = number(1234) }, "1234 100 100 10 11 /home/ada"},
		"number and group":   {plain, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser, s.RunAsGroup = number(1234), number(7) }, "1234 7 7 10 11 /home/ada"},
		"unknown number":     {byName, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = number(4321) }, "4321 0 0 /"},
		"name":               {plain, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUsername = "ada" }, "1234 100 100 10 11 /home/ada"},
		"largest number":     {plain, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = number(1<<31 - 1) }, "2147483647 0 0 /"},
		"groups are merged":  {byName, func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{500, 10} }, "1234 100 100 10 11 500 /home/ada"},
		"strict groups":      {byName, strictly(500), "1234 100 100 500 /home/ada"},
		"strict without any": {byName, strictly(), "1234 100 100 /home/ada"},
	} {
		config := sh(whoami)
		config.Image.Image = c.image
		if c.change != nil {
			c.change(security(config))
		}
		k := p.start(config)
		if got := k.output(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		u := k.status().User.GetLinux()
		words := strings.Fields(c.want)
		if strconv.FormatInt(u.GetUid(), 10) != words[0] || strconv.FormatInt(u.GetGid(), 10) != words[1] || len(u.GetSupplementalGroups()) != len(words)-3 {
			t.Errorf("%s: status says %v", name, u)
		}
	}
}

func strictly(groups ...int64) func(*cri.LinuxContainerSecurityContext) {
	return func(s *cri.LinuxContainerSecurityContext) {
		s.SupplementalGroupsPolicy, s.SupplementalGroups = cri.SupplementalGroupsPolicy_Strict, groups
	}
}

func TestUsersThatCouldBeRootInDisguiseAreRefused(t *testing.T) {
	p := runPod(t)
	for _, user := range []string{"2147483648", "4294967296", "4294967297", "99999999999999999999", "-1", "0:4294967296", "nosuchuser", "ada:nosuchgroup"} {
		config := sh(whoami)
		config.Image.Image = peopled(t, user)
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("image user %q: %v", user, err)
		}
	}
	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"user of 32 bits":     func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1 << 31} },
		"user of 33 bits":     func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1 << 32} },
		"negative user":       func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: -1} },
		"unknown name":        func(s *cri.LinuxContainerSecurityContext) { s.RunAsUsername = "nosuchuser" },
		"group without user":  func(s *cri.LinuxContainerSecurityContext) { s.RunAsGroup = &cri.Int64Value{Value: 1} },
		"supplemental group":  func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{1 << 31} },
		"user and name":       func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser, s.RunAsUsername = &cri.Int64Value{}, "root" },
		"policy out of range": func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroupsPolicy = 9 },
	} {
		config := sh(whoami)
		change(security(config))
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// kernelStatus is /proc/self/status of a container's first process.
func kernelStatus(p *pod, change func(*cri.ContainerConfig)) map[string]string {
	p.t.Helper()
	config := sh("")
	config.Command = []string{"/bin/cat", "/proc/self/status"}
	change(config)
	out := map[string]string{}
	for line := range strings.Lines(p.start(config).output()) {
		name, value, _ := strings.Cut(line, ":")
		out[name] = strings.TrimSpace(value)
	}
	return out
}

// capabilities reads a set of /proc/self/status.
func capabilities(t *testing.T, status map[string]string, set string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(status[set], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	capChown      = 1 << 0
	capKill       = 1 << 5
	capNetService = 1 << 10
	capNetAdmin   = 1 << 12
	capSysAdmin   = 1 << 21
	capSysTime    = 1 << 25
	capDefaults   = 0xa80425fb
)

func TestCapabilitiesAreAddedAndDropped(t *testing.T) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(own), "CapEff:")
	held, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	p := runPod(t)
	for name, c := range map[string]struct {
		add, drop, ambient []string
		want, wantAmbient  uint64
	}{
		"defaults":         {want: capDefaults},
		"added":            {add: []string{"NET_ADMIN", "CAP_SYS_TIME"}, want: capDefaults | capNetAdmin | capSysTime},
		"dropped":          {drop: []string{"CHOWN", "cap_kill"}, want: capDefaults &^ (capChown | capKill)},
		"all added":        {add: []string{"ALL"}, want: held},
		"all dropped":      {drop: []string{"ALL"}},
		"only one":         {add: []string{"NET_ADMIN"}, drop: []string{"ALL"}, want: capNetAdmin},
		"all but one":      {add: []string{"ALL"}, drop: []string{"SYS_ADMIN"}, want: held &^ capSysAdmin},
		"drop wins":        {add: []string{"NET_ADMIN"}, drop: []string{"NET_ADMIN"}, want: capDefaults},
		"ambient":          {ambient: []string{"NET_BIND_SERVICE"}, want: capDefaults, wantAmbient: capNetService},
		"all ambient":      {ambient: []string{"ALL"}, want: held, wantAmbient: held},
		"ambient and more": {drop: []string{"ALL"}, ambient: []string{"NET_ADMIN"}, want: capNetAdmin, wantAmbient: capNetAdmin},
	} {
		s := kernelStatus(p, func(k *cri.ContainerConfig) {
			security(k).Capabilities = &cri.Capability{AddCapabilities: c.add, DropCapabilities: c.drop, AddAmbientCapabilities: c.ambient}
		})
		got := []uint64{capabilities(t, s, "CapEff"), capabilities(t, s, "CapBnd"), capabilities(t, s, "CapPrm"), capabilities(t, s, "CapAmb"), capabilities(t, s, "CapInh")}
		want := []uint64{c.want & held, c.want & held, c.want & held, c.wantAmbient, c.wantAmbient}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	config := sh("true")
	security(config).Capabilities = &cri.Capability{AddCapabilities: []string{"MAKE_TEA"}}
	if err := p.createError(config); code(err) != codes.InvalidArgument {
		t.Errorf("an unknown capability: %v", err)
	}
}

func TestAUserKeepsAmbientCapabilitiesOnly(t *testing.T) {
	p := runPod(t)
	for name, c := range map[string]struct {
		ambient []string
		want    uint64
	}{"none": {nil, 0}, "one": {[]string{"NET_BIND_SERVICE"}, capNetService}} {
		s := kernelStatus(p, func(k *cri.ContainerConfig) {
			security(k).RunAsUser = &cri.Int64Value{Value: 1000}
			security(k).Capabilities = &cri.Capability{AddAmbientCapabilities: c.ambient}
		})
		if got := capabilities(t, s, "CapEff"); got != c.want {
			t.Errorf("%s: effective %x", name, got)
		}
	}
}

func TestAReadOnlyRootCannotBeWritten(t *testing.T) {
	p := runPod(t, own)
	config := sh("touch /x; touch /etc/hosts; touch /dev/shm/x && echo shm; touch /var/vol/x && echo volume")
	security(config).ReadonlyRootfs = true
	config.Mounts = []*cri.Mount{{ContainerPath: "/var/vol", HostPath: t.TempDir()}}
	if out := p.start(config).output(); strings.Count(out, "Read-only file system") != 2 || !strings.Contains(out, "shm\nvolume") {
		t.Errorf("got %q", out)
	}
}

func TestPathsAreMaskedAndReadOnly(t *testing.T) {
	p := runPod(t)
	script := "cat /proc/meminfo | wc -c; ls /proc/sys/vm | wc -l; echo x > /proc/sys/kernel/domainname; touch /tmp/ro/x; true"
	config := sh(script)
	config.Mounts = []*cri.Mount{{ContainerPath: "/tmp/ro", HostPath: t.TempDir()}}
	if out := p.start(config).output(); strings.HasPrefix(out, "0\n") || strings.Contains(out, "\n0\n") || strings.Contains(out, "tmp/ro") {
		t.Errorf("without: %q", out)
	}
	config = sh(script)
	config.Mounts = []*cri.Mount{{ContainerPath: "/tmp/ro", HostPath: t.TempDir()}}
	security(config).MaskedPaths = []string{"/proc/meminfo", "/proc/sys/vm", "/proc/no-such-thing"}
	security(config).ReadonlyPaths = []string{"/proc/sys/kernel", "/tmp/ro", "/proc/neither"}
	if out := p.start(config).output(); !strings.HasPrefix(out, "0\n0\n") || strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("with: %q", out)
	}
}

func TestPrivilegedMeansAllOfIt(t *testing.T) {
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	config := sh("test -c /dev/kmsg && echo device; mount -t tmpfs x /mnt && echo mounted; grep ' /sys ' /proc/mounts; true")
	config.Command[2] = "mkdir -p /mnt; " + config.Command[2]
	security(config).Privileged = true
	c := p.start(config)
	out := c.output()
	if s := c.status(); s.ExitCode != 0 {
		t.Errorf("status %v", s)
	}
	for _, want := range []string{"mounted", "sysfs rw"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	if _, err := os.Stat("/dev/kmsg"); err == nil && !strings.Contains(out, "device") {
		t.Errorf("no host device in %q", out)
	}
	if s := kernelStatus(p, func(k *cri.ContainerConfig) { security(k).Privileged = true }); s["Seccomp"] != "0" || capabilities(t, s, "CapEff")&capSysAdmin == 0 {
		t.Errorf("privileged has seccomp %s, capabilities %s", s["Seccomp"], s["CapEff"])
	}
	if err := runPod(t).createError(config); code(err) != codes.InvalidArgument {
		t.Errorf("a privileged container in a pod that is not: %v", err)
	}
	plain := p.start(sh("mount -t tmpfs x /tmp; ls /dev | grep -c . ; grep -c 'sysfs ro' /proc/mounts; true")).output()
	if !strings.Contains(plain, "denied") && !strings.Contains(plain, "permitted") {
		t.Errorf("a plain container mounts: %q", plain)
	}
}

func TestDevicesAreGivenAndGuarded(t *testing.T) {
	p := runPod(t)
	config := sh("head -c4 /dev/my-zero | wc -c; echo x > /dev/my-zero; head -c1 /dev/sub/zero | wc -c; mknod /dev/kmsg2 c 1 11; cat /dev/kmsg2; true")
	config.Devices = []*cri.Device{
		{HostPath: "/dev/zero", ContainerPath: "/dev/my-zero", Permissions: "rwm"},
		{HostPath: "/dev/full", ContainerPath: "/dev/sub/zero", Permissions: "r"},
	}
	out := p.start(config).output()
	if !strings.HasPrefix(out, "4\n1\n") || !strings.Contains(out, "not permitted") {
		t.Errorf("got %q", out)
	}
	for name, d := range map[string]*cri.Device{
		"missing":     {HostPath: "/dev/no-such-device", ContainerPath: "/dev/x", Permissions: "rwm"},
		"no device":   {HostPath: "/etc/hostname", ContainerPath: "/dev/x", Permissions: "rwm"},
		"permissions": {HostPath: "/dev/zero", ContainerPath: "/dev/x", Permissions: "all"},
	} {
		config := sh("true")
		config.Devices = []*cri.Device{d}
		if err := p.createError(config); err == nil || code(err) == codes.Unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADirectoryOfDevicesIsGivenWhole(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"null": 3, "sub/zero": 5} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "file"), "no device")
	config := sh("cd /dev/mine && echo x > null && head -c 3 sub/zero | wc -c; find . -type c | sort; ls file")
	config.Devices = []*cri.Device{{HostPath: dir, ContainerPath: "/dev/mine", Permissions: "rw"}}
	if out := runPod(t).start(config).output(); !strings.HasPrefix(out, "3\n./null\n./sub/zero\n") || !strings.Contains(out, "No such file") {
		t.Errorf("got %q", out)
	}
}

func TestAContainerHoldsNoDescriptorsOfOurs(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	config := sh("ls /proc/self/fd | tr '\\n' ' '")
	for where, out := range map[string]string{"container": p.start(config).output(), "exec": c.sh(config.Command[2])} {
		if got := strings.TrimSpace(out); got != "0 1 2 3" { // 3 is ls reading the directory
			t.Errorf("%s: open are %s", where, got)
		}
	}
	for _, dir := range []string{"/proc/self/fd/7", "/proc/self/fd/8", "/tmp/../proc/1/fd/3"} {
		config := sh("true")
		config.WorkingDir = dir
		if err := p.createError(config); err == nil {
			t.Errorf("working directory %s is accepted", dir)
		}
	}
}

func TestPodsDoNotSeeTheDaemonsDirectories(t *testing.T) {
	for _, dir := range []string{berth.Dir + "/data", berth.State() + "/pods", berth.Dir + "/data/containers"} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o066 != 0 {
			t.Errorf("%s has mode %s", dir, info.Mode())
		}
	}
	info, err := os.Stat(berth.Socket())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
}
