package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

// What the kernel's file systems and the pod's files are mounted on are links in
// the image (CVE-2019-16884, CVE-2023-27561).
func TestAnImagesSystemDirectoriesMayBeLinks(t *testing.T) {
	outside := t.TempDir()
	p := runPod(t, own)
	for _, dir := range []string{"proc", "sys", "dev", "etc", "proc/sys", "dev/shm"} {
		for _, target := range []string{outside, "../../../../../../../.." + outside, "/tmp", "."} {
			name := variant(t, func(i *images.Image) {
				i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: dir, Link: target, Type: images.Symlink}}})
			})
			config := sh("wc -c < /proc/meminfo; ls /proc/sys/vm; touch /proc/sys/kernel/domainname; true")
			config.Image.Image = name
			security(config).MaskedPaths = []string{"/proc/meminfo", "/proc/sys/vm"}
			security(config).ReadonlyPaths = []string{"/proc/sys"}
			k, err := p.try(config)
			if err == nil {
				if out := k.output(); !strings.HasPrefix(out, "0\n") || strings.Contains(out, "swappiness") || !strings.Contains(out, "Read-only") {
					t.Errorf("%s → %s: %q", dir, target, out)
				}
			} else if code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "the image's /"+dir+" is a link") {
				t.Errorf("%s → %s: %v", dir, target, err)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Fatalf("%s → %s: made outside: %v, %v", dir, target, left, err)
			}
		}
	}
}

// The path is checked as it is written; a link in the image says something else
// (CVE-2024-21626).
func TestAWorkingDirectoryThatIsALinkToADescriptorIsInside(t *testing.T) {
	p := runPod(t)
	for fd := range 16 {
		name := variant(t, func(i *images.Image) {
			i.Config.WorkingDir = "/way/out"
			i.Layers = append(i.Layers, images.Layer{Files: []images.File{
				{Name: "way/out", Link: fmt.Sprintf("/proc/self/fd/%d", fd), Type: images.Symlink},
			}})
		})
		config := sh("ls -d ../../../../../../../.." + berth.Dir)
		config.Image.Image = name
		k, err := p.try(config)
		if err != nil {
			continue
		}
		if out := k.output(); !strings.Contains(out, "No such file") {
			t.Errorf("from descriptor %d: %q", fd, out)
		}
	}
}

// Others wrote HOME into /etc/passwd (CVE-2022-4318).
func TestNewLinesStayWithinTheirWord(t *testing.T) {
	const evil = "/x\nevil:x:0:0::/:/bin/sh"
	name := variant(t, func(i *images.Image) {
		i.Config.Env = append(i.Config.Env, "HOME="+evil)
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "etc/passwd", Data: []byte("ada:x:7:7::/:/bin/sh\n")}}})
	})
	p := runPod(t, own)
	config := sh(`cat /etc/passwd /etc/group /etc/hosts /etc/hostname /etc/resolv.conf; test "$HOME" = "` + evil + `" && echo kept`)
	config.Image.Image = name
	config.Envs = []*cri.KeyValue{{Key: "HOSTNAME", Value: []byte("a\n127.0.0.1 evil")}}
	security(config).RunAsUser = &cri.Int64Value{Value: 1234}
	if out := p.start(config).output(); strings.Contains(out, "evil") || !strings.HasSuffix(out, "\nkept") {
		t.Errorf("got %q", out)
	}
	for what, change := range map[string]func(*cri.PodSandboxConfig){
		"hostname":      func(c *cri.PodSandboxConfig) { c.Hostname = "a\n127.0.0.1 evil" },
		"name":          func(c *cri.PodSandboxConfig) { c.Metadata.Name = "a\nevil" },
		"namespace":     func(c *cri.PodSandboxConfig) { c.Metadata.Namespace = "a;K8S_POD_NAME=evil" },
		"cgroup parent": func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = "a\nevil" },
	} {
		config := podConfig(t)
		own(config)
		change(config)
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, user := range []string{"ada\nroot", "ada:root\n", "7\n0"} {
		config := sh("true")
		config.Image.Image = peopled(t, user)
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("image user %q: %v", user, err)
		}
	}
}

// Files of the image are read by berthd (CVE-2023-25153, CVE-2026-47262).
func TestAccountFilesThatAreHugeOrNoFilesAreRefused(t *testing.T) {
	huge := []byte(strings.Repeat("x:x:5:5::/:/bin/sh\n", 1<<20))
	p := runPod(t)
	for what, file := range map[string]images.File{
		"huge passwd":   {Name: "etc/passwd", Data: huge},
		"long line":     {Name: "etc/passwd", Data: []byte(strings.Repeat("x", 4<<20))},
		"huge group":    {Name: "etc/group", Data: huge},
		"device":        {Name: "etc/passwd", Type: images.CharDevice, Major: 1, Minor: 5},
		"pipe":          {Name: "etc/passwd", Type: images.Fifo},
		"pipe of group": {Name: "etc/group", Type: images.Fifo},
	} {
		name := variant(t, func(i *images.Image) {
			i.Config.User = "ada"
			files := []images.File{{Name: "etc/passwd", Data: []byte("ada:x:7:7::/:/bin/sh\n")}, file}
			if file.Name == "etc/passwd" {
				files = files[1:]
			}
			i.Layers = append(i.Layers, images.Layer{Files: files})
		})
		config := sh("true")
		config.Image.Image = name
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}
