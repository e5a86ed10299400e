package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	testnode "github.com/berth-run/berth/test/node"
)

// TestAFullDiskKeepsNobodyFromStartingAndRemovingImages has a node of its own,
// whose disk has neither a byte nor an inode left, and whose daemon was killed.
func TestAFullDiskKeepsNobodyFromStartingAndRemovingImages(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "bfull") //nolint:usetesting // sockets want a short path
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	must(t, os.Mkdir(data, 0o700))
	must(t, unix.Mount("full", data, "tmpfs", 0, "size=64m,nr_inodes=4k"))
	t.Cleanup(func() { must(t, unix.Unmount(data, unix.MNT_DETACH)) })
	n, err := testnode.New(dir, testnode.Options{Bridge: "berthfull0"})
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	must(t, n.Start())
	image, err := images.Busybox()
	must(t, err)
	must(t, n.Load(busybox, image))
	must(t, n.Kill())
	fillUp(t, data)
	must(t, n.Start())
	if n.Load(busybox, image) == nil {
		t.Error("an archive was loaded onto a full disk")
	}
	list, err := n.Images.ListImages(t.Context(), &cri.ListImagesRequest{})
	if err != nil || len(list.Images) != 1 {
		t.Fatalf("images: %v, %v", list, err)
	}
	_, err = n.Images.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: list.Images[0].Id}})
	must(t, err)
	eventually(t, func() error { // its files go behind the answer
		var st unix.Statfs_t
		must(t, unix.Statfs(data, &st))
		if free := st.Bfree * uint64(st.Bsize); free < 1<<20 {
			return fmt.Errorf("%d bytes are free after the removal", free)
		}
		return nil
	})
	for _, pattern := range []string{"ballast", "inode*"} {
		filled, err := filepath.Glob(filepath.Join(data, pattern))
		must(t, err)
		for _, p := range filled {
			must(t, os.Remove(p))
		}
	}
	must(t, n.Load(busybox, image))
}

// fillUp leaves neither a block nor an inode.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	for n, err := 0, error(nil); err == nil; n++ {
		err = unix.Mknod(filepath.Join(dir, fmt.Sprintf("inode%d", n)), unix.S_IFREG, 0)
	}
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Bfree != 0 {
		t.Fatalf("%d blocks are free", st.Bfree)
	}
}
