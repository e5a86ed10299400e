package nri

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/containerd/nri/pkg/adaptation"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
)

// free tells whether the socket can be made, and logs why not: another runtime
// listens there, from which the library would take it away, or it is no socket.
func free(path string) bool {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err == nil && info.Mode().Type() == fs.ModeSocket {
		var c net.Conn
		if c, err = net.Dial("unix", path); errors.Is(err, unix.ECONNREFUSED) {
			return true // nobody listens any more
		}
		if err == nil {
			c.Close()
		}
	}
	klog.Background().Error(cmp.Or(err, error(errs.Conflict)), "The NRI socket is taken: plugins cannot connect, only those of the directory count", "socket", path)
	return false
}

// logger passes on what the library logs.
type logger struct{}

func (logger) Debugf(ctx context.Context, format string, args ...any) { say(ctx, 4, format, args) }
func (logger) Infof(ctx context.Context, format string, args ...any)  { say(ctx, 2, format, args) }
func (logger) Warnf(ctx context.Context, format string, args ...any)  { say(ctx, 0, format, args) }

func (logger) Errorf(ctx context.Context, format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, adaptation.ErrWasmDisabled) {
			return // as we are built: what is lost is said when there is such a plugin
		}
	}
	klog.FromContext(ctx).Error(fmt.Errorf(format, args...), "NRI plugins")
}

func say(ctx context.Context, level int, format string, args []any) {
	if log := klog.FromContext(ctx).V(level); log.Enabled() {
		log.Info("NRI plugins", "what", fmt.Sprintf(format, args...))
	}
}
