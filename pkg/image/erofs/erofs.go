// Package erofs shows images from the tar streams of their layers as they are, by
// the kernel's read-only file system EROFS.
//
// Write writes an image of metadata alone: inodes and directories, of blocks of 512
// bytes, as tar has them, so that the content of a file is a run of blocks of a
// further device, the tar stream itself. Mount mounts the image with its devices,
// as files or through loop devices.
//
//	image  super block, device slots, inodes, directories
//	    ├─ device 1: tar stream of a layer
//	    ├─ device 2: the same layer's spill: sparse files whose pieces are not whole blocks
//	    └─ device 3: tar stream of another layer
//
// Write is pure; nothing is kept between calls.
package erofs

// blockSize is tar's, and that of the images.
const (
	blockBits = 9
	blockSize = 1 << blockBits
)

func align(n, to int64) int64 { return (n + to - 1) / to * to }
