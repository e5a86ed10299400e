// Package statefile writes small records so that a reader sees the old one or
// the new one, whole, whenever the process or the machine stops.
//
// A record is JSON in one file. Write goes temp file, rename; WriteDurable also
// syncs the file before the rename and the directory after it, for records
// whose loss in a power cut would be a lie. A file that cannot be decoded is
// for the caller to Quarantine, never a reason to stop.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth/pkg/internal/room"
)

// maxBytes bounds what Read takes in, and so what Write writes: a record is small.
const maxBytes = 16 << 20

// ErrCorrupt says that a file is there but does not hold a whole record.
var ErrCorrupt = errors.New("record is corrupt")

// ErrTooLarge says that a record was not written, because Read would refuse it.
var ErrTooLarge = errors.New("record is too large")

// Write replaces the file at path by v as JSON, with mode 0600. It survives the
// death of the process; a power cut may leave the old record, or an empty file
// that Read reports as ErrCorrupt.
func Write(path string, v any) error { return write(path, v, false) }

// WriteDurable is Write that has reached the disk when it returns.
func WriteDurable(path string, v any) error { return write(path, v, true) }

func write(path string, v any, durable bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if len(data) > maxBytes {
		return fmt.Errorf("write %s: %d bytes: %w", path, len(data), ErrTooLarge)
	}
	return WriteBytes(path, data, 0o600, durable)
}

// WriteBytes is Write for content that is not JSON.
func WriteBytes(path string, data []byte, mode fs.FileMode, durable bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+filepath.Base(path)+"-")
	if err != nil {
		return room.Explain(err, path, int64(len(data)))
	}
	err = fill(f, data, mode, durable)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // best effort: Sweep removes what stays
		return fmt.Errorf("write %s: %w", path, room.Explain(err, path, int64(len(data))))
	}
	if durable {
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

func fill(f *os.File, data []byte, mode fs.FileMode, durable bool) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if mode != 0o600 { // what CreateTemp gives
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	if durable {
		return f.Sync()
	}
	return nil
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Read decodes the record at path into v. The error is fs.ErrNotExist where
// there is none, and ErrCorrupt where what is there is not a record.
func Read(path string, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxBytes {
		return fmt.Errorf("read %s: %d bytes: %w", path, info.Size(), ErrCorrupt)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", path, ErrCorrupt, err)
	}
	return nil
}

// quarantineSuffix ends the name of a file that Quarantine set aside.
const quarantineSuffix = ".corrupt"

// tempPrefix begins the name of a file that is being written.
const tempPrefix = ".tmp-"

// Quarantine sets the file or directory at path aside under a name that no
// store reads, and returns that name.
func Quarantine(path string) (string, error) {
	aside := path + quarantineSuffix
	if err := os.RemoveAll(aside); err != nil {
		return "", err
	}
	return aside, os.Rename(path, aside)
}

// Leftover reports whether a name in a store's directory is not an object but a
// half-written or quarantined file.
func Leftover(name string) bool {
	return strings.HasPrefix(name, tempPrefix) || strings.HasSuffix(name, quarantineSuffix)
}

// Sweep removes what writers that were killed left half-written in dir. It
// cannot tell that from what is being written: call it before the first Write.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
