package libct

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer"
	// The C half of libcontainer's init: it joins and makes namespaces before
	// the Go runtime starts.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime/libct/seccomp"
)

// Init takes over where this execution of the program is libcontainer's init,
// and then does not return. Call it from the only init function of main; for a
// normal start it returns at once.
func Init() {
	if len(os.Args) == 2 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		debug.SetGCPercent(-1) // it lives for milliseconds
		seccomp.Take(firstExtraFile)
		libcontainer.Init()
	}
}

// firstExtraFile is the descriptor of the first file that libcontainer passes
// to its init beside stdio.
const firstExtraFile = 3

// setName names the process after its program; the kernel had named it after
// the descriptor of the memory file that it was executed from.
func setName() error {
	name := append([]byte(filepath.Base(os.Args[0])), 0)
	return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}
