package spec

import (
	"fmt"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// PodSysctls returns the settings to write into a new pod's namespaces, keys
// with dots: those of the configuration, and the defaults that it leaves open
// and whose namespace the pod has. One that would reach the host, or whose
// text could mean more than one setting (CVE-2022-0811), is refused.
func PodSysctls(p *cri.PodSandboxConfig, defaults map[string]string) (map[string]string, error) {
	modes := NamespaceModes(p, nil)
	out := map[string]string{}
	for key, value := range p.GetLinux().GetSysctls() {
		name, err := sysctlName(key)
		if err != nil {
			return nil, err
		}
		if err := checkSysctl(name, value, modes); err != nil {
			return nil, err
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("sysctl %q is set twice: %w", name, errs.Invalid)
		}
		out[name] = value
	}
	for key, value := range defaults {
		name, err := sysctlName(key)
		if err != nil {
			return nil, err
		}
		if _, set := out[name]; !set && checkSysctl(name, value, modes) == nil && !outsideUserNamespace(name, modes) {
			out[name] = value
		}
	}
	return out, nil
}

// outsideUserNamespace holds for a default that names group ids, which a user
// namespace need not map.
func outsideUserNamespace(name string, m Modes) bool {
	return name == "net.ipv4.ping_group_range" && m.User == cri.NamespaceMode_POD
}

// sysctlName checks a name and puts it into the form with dots, in which a
// slash is a dot of an interface's name (sysctl.d(5)).
func sysctlName(key string) (string, error) {
	name := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		name = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || strings.HasPrefix(part, "/") || strings.HasSuffix(part, "/") || strings.Contains(part, "//") {
			return "", fmt.Errorf("sysctl %q: %w", key, errs.Invalid)
		}
	}
	for _, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("._-/@:", r) {
			return "", fmt.Errorf("sysctl %q: %w", key, errs.Invalid)
		}
	}
	return name, nil
}

func checkSysctl(name, value string, m Modes) error {
	if strings.ContainsAny(value, "\x00\n\r") {
		return fmt.Errorf("value of sysctl %q: %w", name, errs.Invalid)
	}
	var needs string
	var own bool
	switch {
	case ipcSysctls[name], strings.HasPrefix(name, "fs.mqueue."):
		needs, own = "IPC", m.IPC != cri.NamespaceMode_NODE
	case strings.HasPrefix(name, "net."):
		needs, own = "network", m.Network != cri.NamespaceMode_NODE
	case name == "kernel.domainname":
		needs, own = "UTS", m.Network != cri.NamespaceMode_NODE
	default: // user.* too: berth-runtime sets nothing of a user namespace, nor does runc
		return fmt.Errorf("sysctl %q belongs to no namespace that a pod can have settings for: %w", name, errs.Invalid)
	}
	if !own {
		return fmt.Errorf("sysctl %q in the host's %s namespace: %w", name, needs, errs.Invalid)
	}
	return nil
}

// ipcSysctls are the settings of an IPC namespace outside fs.mqueue.
var ipcSysctls = map[string]bool{
	"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true,
	"kernel.shmall": true, "kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true,
}
