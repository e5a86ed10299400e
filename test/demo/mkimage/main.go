// Command mkimage puts busybox and one static program into an image that runs
// the program, and writes it as an archive that `berth load` reads.
//
//	mkimage PROGRAM NAME:TAG ARCHIVE
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-run/berth/test/images"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: mkimage PROGRAM NAME:TAG ARCHIVE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

// write makes a layer of busybox and a layer of the program.
func write(program, name, archive string) error {
	image, err := images.Busybox()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	path := "bin/" + filepath.Base(program)
	image.Layers = append(image.Layers, images.Layer{Files: []images.File{{Name: path, Data: data, Mode: 0o755}}})
	image.Config.Cmd = []string{"/" + path}
	f, err := os.OpenFile(archive, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := images.DockerArchive(f, image, name); err != nil {
		return err
	}
	return f.Sync()
}
