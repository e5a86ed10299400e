package spec

import (
	"fmt"
	"strconv"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// The real-time signals as glibc numbers them.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// StopSignal returns the signal that asks a container to end: the
// configuration's, else the image's, else SIGTERM.
func StopSignal(c *cri.ContainerConfig, image ispec.ImageConfig) (int, error) {
	if s := c.GetStopSignal(); s != cri.Signal_SIGNAL_RUNTIME_DEFAULT {
		return parseSignal(enumSignal(s))
	}
	if image.StopSignal == "" {
		return int(unix.SIGTERM), nil
	}
	n, err := parseSignal(image.StopSignal)
	if err != nil {
		return 0, fmt.Errorf("image: %w", err)
	}
	return n, nil
}

// enumSignal turns SIGNAL_SIGRTMINPLUS3 into SIGRTMIN+3.
func enumSignal(s cri.Signal) string {
	name := strings.TrimPrefix(s.String(), "SIGNAL_")
	return strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(name)
}

// parseSignal reads a number or a name, with or without SIG, in any case.
func parseSignal(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("signal %q: %w", text, errs.Invalid)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if n, ok := realTime(name); ok {
		return n, nil
	}
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return int(n), nil
	}
	if n, ok := signalAliases[name]; ok {
		return int(n), nil
	}
	return 0, fmt.Errorf("signal %q: %w", text, errs.Invalid)
}

// signalAliases are the second names, for which the kernel's headers have one
// number twice.
var signalAliases = map[string]unix.Signal{
	"CLD": unix.SIGCHLD, "IOT": unix.SIGABRT, "POLL": unix.SIGIO, "IO": unix.SIGIO, "ABRT": unix.SIGABRT, "CHLD": unix.SIGCHLD,
}

// realTime reads RTMIN, RTMIN+3, RTMAX and RTMAX-2.
func realTime(name string) (int, bool) {
	base, sign, digits := 0, 1, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, digits = sigRTMin, strings.TrimPrefix(name, "RTMIN")
	case strings.HasPrefix(name, "RTMAX"):
		base, sign, digits = sigRTMax, -1, strings.TrimPrefix(name, "RTMAX")
	default:
		return 0, false
	}
	if digits == "" {
		return base, true
	}
	want := byte('+')
	if sign < 0 {
		want = '-'
	}
	if digits[0] != want {
		return 0, false
	}
	n, err := strconv.ParseUint(digits[1:], 10, 8)
	if err != nil || n > sigRTMax-sigRTMin {
		return 0, false
	}
	return base + sign*int(n), true
}
