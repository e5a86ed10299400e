package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/berth-run/berth/test/images"
)

// The names of the images that are made here.
const (
	busyboxRef = "bench.local/busybox:1"
	pauseRef   = "bench.local/pause:1"
)

// imageFiles are archives that both runtimes load.
type imageFiles struct {
	Busybox, Pause string
}

// pauseSource is what a pause container does, and no more.
const pauseSource = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"

// makeImages builds both images from what is on the machine.
func makeImages(ctx context.Context, dir string) (imageFiles, error) {
	files := imageFiles{Busybox: filepath.Join(dir, "busybox.tar"), Pause: filepath.Join(dir, "pause.tar")}
	busybox, err := images.Busybox()
	if err != nil {
		return files, err
	}
	if err := writeArchive(files.Busybox, busyboxRef, busybox); err != nil {
		return files, err
	}
	source, program := filepath.Join(dir, "pause.c"), filepath.Join(dir, "pause")
	if err := os.WriteFile(source, []byte(pauseSource), 0o644); err != nil {
		return files, err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-s", "-o", program, source).CombinedOutput(); err != nil {
		return files, fmt.Errorf("compile pause: %w: %s", err, out)
	}
	pause, err := images.FromBinary(program, "pause")
	if err != nil {
		return files, err
	}
	return files, writeArchive(files.Pause, pauseRef, pause)
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
