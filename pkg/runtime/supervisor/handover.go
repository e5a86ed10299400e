package supervisor

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// handover is all that an anchor has, as it goes through an exec: into a newer
// program, or from the worker that takes a dead anchor's place. It travels in a
// memfd whose number the environment tells.
type handover struct {
	Version int      `json:"version"`
	Listen  int      `json:"listen"`
	Lock    int      `json:"lock"`
	Entries []*entry `json:"entries"`
}

// exec replaces the process by the anchor that goes on with h. It returns only
// on failure, and the descriptors are as they were.
func (h *handover) exec(program string) error {
	h.Version = recordVersion
	memory, err := h.write()
	if err != nil {
		return err
	}
	defer unix.Close(memory)
	h.inherit(true)
	env := append(cleanEnv(), handoverVariable+"="+strconv.Itoa(memory))
	err = syscall.Exec(program, os.Args, env)
	h.inherit(false)
	return fmt.Errorf("execute %s: %w", program, err)
}

func (h *handover) write() (int, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("berth-handover", 0)
	if err != nil {
		return -1, err
	}
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			_ = unix.Close(fd) // memory
			return -1, err
		}
		data = data[n:]
	}
	return fd, nil
}

// inherit lets all descriptors pass an exec, or not.
func (h *handover) inherit(pass bool) {
	flag := unix.FD_CLOEXEC
	if pass {
		flag = 0
	}
	set := func(fd int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag) } // they are open
	set(h.Listen)
	set(h.Lock)
	for _, e := range h.Entries {
		for _, fd := range e.FDs {
			set(fd)
		}
	}
}

// takeHandover returns what the process inherited, or nil.
func takeHandover() (*handover, error) {
	value, ok := os.LookupEnv(handoverVariable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(handoverVariable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("handover %q is not a descriptor", value)
	}
	f := os.NewFile(uintptr(fd), "handover")
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<20))
	if err != nil {
		return nil, err
	}
	h := &handover{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("decode handover: %w", err)
	}
	for _, e := range h.Entries {
		e.prune()
	}
	h.inherit(false)
	return h, nil
}

// cleanEnv is the environment without what tells roles.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, roleVariable+"=") || strings.HasPrefix(kv, handoverVariable+"=")
	})
}

// promote makes this worker the anchor. Its children stay its children.
func (w *worker) promote() error {
	h := &handover{Listen: fdListen, Lock: fdLock}
	h.Entries = append(h.Entries, &entry{ID: pumpEntry, FDs: map[string]int{nameStage: w.pump.Stage()}})
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.lost {
		h.Entries = append(h.Entries, &entry{ID: id, FDs: map[string]int{}})
	}
	for id, c := range w.containers {
		rec := c.rec.Load()
		if c.stdio == nil || rec.Container.PID == 0 {
			continue
		}
		fds := c.stdio.FDs()
		if c.pidfd >= 0 {
			fds[namePidfd] = c.pidfd
		}
		h.Entries = append(h.Entries, &entry{ID: id, PID: rec.Container.PID, Begun: rec.Begun, FDs: fds})
	}
	return h.exec(selfProgram)
}

// selfProgram is the program that runs, even if its file has been replaced.
const selfProgram = "/proc/self/exe"
