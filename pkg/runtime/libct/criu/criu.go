// Package criu is what Berth knows of CRIU beside what libcontainer does: whether it
// works here, its settings, why it has failed, and how a container's streams, which
// lie outside of its root file system, come out of one container and into another.
//
// Dumps are hostile, except to CRIU itself, which nothing can protect from its own
// images.
package criu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// The files of a dump, below its directory, as other runtimes name them.
const (
	ImagesDir   = "checkpoint" // CRIU's
	DumpLog     = "dump.log"
	RestoreLog  = "restore.log"
	streamsFile = "stdio.json"       // in imagesDir, ours
	pipesFile   = "descriptors.json" // libcontainer's
	filesImage  = "files.img"
)

// settings is the administrator's file of settings for CRIU.
const settings = "/etc/criu/runc.conf"

// limit bounds the questions that are asked of CRIU beforehand.
const limit = 20 * time.Second

var versionLine = regexp.MustCompile(`(?m)^Version: (\d+)\.(\d+)`)

// Check reports whether CRIU is here and this kernel lets it work. The error is
// errs.Unsupported where not, and says what to do.
func Check(ctx context.Context) error {
	path, err := exec.LookPath("criu")
	if err != nil {
		return fmt.Errorf("checkpoints need CRIU 3.16 or newer in PATH on the node: %w", errs.Unsupported)
	}
	// What a killed CRIU tried the kernel with stays, and looks like one that dumps:
	// see AwaitOrphans.
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	out, err := exec.CommandContext(asked, path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w: %w", path, err, errs.Unsupported)
	}
	var major, minor int
	if m := versionLine.FindSubmatch(out); m == nil {
		return fmt.Errorf("%s does not tell its version: %w", path, errs.Unsupported)
	} else if _, err := fmt.Sscan(string(m[1])+" "+string(m[2]), &major, &minor); err != nil || major < 3 || major == 3 && minor < 16 {
		return fmt.Errorf("checkpoints need CRIU 3.16 or newer in PATH on the node, %s is %s.%s: %w", path, m[1], m[2], errs.Unsupported)
	}
	if out, err := exec.CommandContext(asked, path, "check").CombinedOutput(); err != nil {
		return fmt.Errorf("this kernel does not let CRIU work, criu check: %.300s: %w: %w", lastLine(out), err, errs.Unsupported)
	}
	return ctx.Err()
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// Explain adds to an error what CRIU's log says of the failure.
func Explain(err error, log string) error {
	f, openErr := os.Open(log)
	if openErr != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); { // the first is the cause, the others follow
		if _, text, found := strings.Cut(lines.Text(), "Error ("); found {
			return fmt.Errorf("%w: CRIU: (%.300s", err, text)
		}
	}
	return err
}

// Configure writes settings for CRIU, beside the administrator's, to path, and
// returns labels with the one by which libcontainer finds the file. That is never
// the container's own: settings make CRIU run programs.
func Configure(labels []string, path string, lines []string) ([]string, error) {
	admin, err := os.ReadFile(settings)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	const label = "org.criu.config="
	labels = slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return strings.HasPrefix(l, label) })
	return append(labels, label+path), os.WriteFile(path, []byte(string(admin)+"\n"+strings.Join(lines, "\n")+"\n"), 0o600)
}

// streamKey is how CRIU names a file that comes from outside.
var streamKey = regexp.MustCompile(`^file\[[0-9a-f]{1,16}:[0-9a-f]{1,16}\]$`)

// stdioFDs are the descriptors that the streams have in CRIU's process.
var stdioFDs = map[string]int{"stdin": 0, "stdout": 1, "stderr": 2}

// Streams finds where processes have the FIFOs open, whose names are given with
// their paths, and notes it among the images. It returns settings that have CRIU
// leave these files out of a dump.
func Streams(images string, pids []int, fifos map[string]string) (lines []string, err error) {
	found, err := openStreams(pids, fifos)
	if err != nil {
		return nil, err
	}
	for key := range found {
		lines = append(lines, "external "+key)
	}
	data, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	return lines, errors.Join(os.MkdirAll(images, 0o700), os.WriteFile(filepath.Join(images, streamsFile), data, 0o600))
}

// openStreams returns CRIU's names of open FIFOs, and the streams that they are.
func openStreams(pids []int, fifos map[string]string) (map[string]string, error) {
	type file struct{ dev, ino uint64 }
	names := map[file]string{}
	for name, path := range fifos {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		names[file{st.Dev, st.Ino}] = name
	}
	found := map[string]string{}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, fd.Name()), &st); err != nil {
				continue // not one of ours, which cannot vanish: all are frozen
			}
			name, ours := names[file{st.Dev, st.Ino}]
			if !ours {
				continue
			}
			mount, err := mountOf(pid, fd.Name())
			if err != nil {
				return nil, err
			}
			found[fmt.Sprintf("file[%x:%x]", mount, st.Ino)] = name
		}
	}
	return found, nil
}

// mountOf returns the id of the mount that a descriptor was opened at.
func mountOf(pid int, fd string) (id int, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if n, err := fmt.Sscanf(line, "mnt_id: %d", &id); n == 1 && err == nil {
			return id, nil
		}
	}
	return 0, fmt.Errorf("descriptor %s of process %d: no mount: %w", fd, pid, errs.Unsupported)
}

// Bounds of files of a dump that are read here.
const (
	maxStreams = 64 << 10
	maxFiles   = 64 << 20
)

// Inherit has CRIU give the new streams to who had the old ones. It is
// libcontainer that says so to CRIU, and it does for pipes alone: so the streams
// are called pipes in the copy of the dump, which keeps all lengths. The dump is
// hostile, and may name nothing but streams.
func Inherit(images string) error {
	data, err := readBounded(filepath.Join(images, streamsFile), maxStreams)
	if err != nil {
		return err
	}
	var streams map[string]string
	if err := json.Unmarshal(data, &streams); err != nil {
		return fmt.Errorf("%s: %w: %w", streamsFile, err, errs.Invalid)
	}
	files, err := readBounded(filepath.Join(images, filesImage), maxFiles)
	if err != nil {
		return err
	}
	pipes := make([]string, len(stdioFDs)) // by descriptor
	for key, name := range streams {
		fd, known := stdioFDs[name]
		switch {
		case !known || !streamKey.MatchString(key):
			return fmt.Errorf("%s: %.40q: %.40q is no stream: %w", streamsFile, key, name, errs.Invalid)
		case pipes[fd] != "":
			return fmt.Errorf("its %s was opened through two mounts: %w", name, errs.Unsupported)
		}
		pipes[fd] = "pipe:" + strings.TrimPrefix(key, "file[")
		files = bytes.ReplaceAll(files, []byte(key), []byte(pipes[fd]))
	}
	if data, err = json.Marshal(pipes); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(images, filesImage), files, 0o600), os.WriteFile(filepath.Join(images, pipesFile), data, 0o600))
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes: %w", filepath.Base(path), limit, errs.Invalid)
	}
	return data, err
}
