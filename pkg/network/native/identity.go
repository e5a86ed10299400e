package native

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
)

// The module of the reference plugins, in the version that this package does
// the same as: after an upgrade the conformance test must pass before these
// change. Another test keeps them equal to go.sum.
const (
	pluginsModule  = "github.com/containernetworking/plugins"
	pluginsVersion = "v1.9.1"
	pluginsSum     = "h1:8oU6WsIsU3bpnNZuvHp74a6cE1MJwbj2P7s4/yTUNlA="
)

// seenFile is what is known of a plugin's file, as long as the file is the same.
type seenFile struct {
	dev, ino    uint64
	size        int64
	mtime       syscall.Timespec
	isReference bool
}

// isReference says whether the file at path is a plugin known here, built from
// the pinned version of the module, its checksum included.
func (e *Exec) isReference(path string) bool {
	pkg := known[filepath.Base(path)]
	if pkg == "" {
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	st := info.Sys().(*syscall.Stat_t)
	if b, ok := e.binaries.Load(path); ok {
		if b := b.(*seenFile); b.dev == st.Dev && b.ino == st.Ino && b.size == st.Size && b.mtime == st.Mtim {
			return b.isReference
		}
	}
	b := &seenFile{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim}
	if built, err := buildinfo.ReadFile(path); err == nil && built.Path == pkg {
		b.isReference = isPinned(built)
	}
	e.binaries.Store(path, b)
	return b.isReference
}

// isPinned says whether a program was built from exactly that module.
func isPinned(info *debug.BuildInfo) bool {
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == pluginsModule {
			return m.Replace == nil && m.Version == pluginsVersion && m.Sum == pluginsSum
		}
	}
	return false
}
