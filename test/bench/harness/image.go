package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/berth-run/berth/test/images"
)

// BusyboxRef is an image that every runtime has when its starter returns.
const BusyboxRef = "bench.local/busybox:1"

const pauseRef = "bench.local/pause:1"

// The archives that starters load.
func busyboxArchive(dir string) string { return filepath.Join(dir, "busybox.tar") }
func pauseArchive(dir string) string   { return filepath.Join(dir, "pause.tar") }

// pauseSource is what a pause container does, and no more.
const pauseSource = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"

// makeImages builds both images from what is on the machine.
func makeImages(ctx context.Context, dir string) error {
	busybox, err := images.Busybox()
	if err != nil {
		return err
	}
	if err := writeArchive(busyboxArchive(dir), BusyboxRef, busybox); err != nil {
		return err
	}
	source, program := filepath.Join(dir, "pause.c"), filepath.Join(dir, "pause")
	if err := os.WriteFile(source, []byte(pauseSource), 0o644); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-s", "-o", program, source).CombinedOutput(); err != nil {
		return fmt.Errorf("compile pause: %w: %s", err, out)
	}
	pause, err := images.FromBinary(program, "pause")
	if err != nil {
		return err
	}
	return writeArchive(pauseArchive(dir), pauseRef, pause)
}

// writeArchive writes image as a docker archive: the form in which a name is
// a whole reference for everybody.
func writeArchive(path, ref string, image images.Image) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return images.DockerArchive(f, image, ref)
}
