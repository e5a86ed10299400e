package host

import (
	"strconv"
	"strings"
)

// capabilityNames are in the order of the kernel's numbers; the last three
// came with Linux 5.8 (PERFMON, BPF) and 5.9 (CHECKPOINT_RESTORE).
var capabilityNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// KnownCapabilities returns every capability that Berth knows, by number.
func KnownCapabilities() []string { return append([]string(nil), capabilityNames[:]...) }

// heldCapabilities reads /proc/self/status: permitted and bounding at once.
func heldCapabilities(status string) []string {
	sets := map[string]uint64{}
	for line := range strings.Lines(status) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || key != "CapPrm" && key != "CapBnd" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return nil
		}
		sets[key] = bits
	}
	both := sets["CapPrm"] & sets["CapBnd"]
	var out []string
	for i, name := range capabilityNames {
		if both&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}
