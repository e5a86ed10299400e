//go:build cgo

package digester

// #cgo CFLAGS: -O2
// #cgo noescape berth_sha256_one
// #cgo nocallback berth_sha256_one
// #cgo noescape berth_sha256_two
// #cgo nocallback berth_sha256_two
// #include "blocks.h"
import "C"

import (
	"sync"
	"unsafe"
)

var usable = sync.OnceValue(func() bool { return C.berth_sha256_usable() != 0 })

// one hashes the next n blocks of a.
func one(a *job, n int) {
	C.berth_sha256_one((*C.uint32_t)(&a.state[0]), (*C.uint8_t)(unsafe.SliceData(a.data)), C.size_t(n))
}

// two hashes the next n blocks of each.
func two(a, b *job, n int) {
	C.berth_sha256_two((*C.uint32_t)(&a.state[0]), (*C.uint8_t)(unsafe.SliceData(a.data)),
		(*C.uint32_t)(&b.state[0]), (*C.uint8_t)(unsafe.SliceData(b.data)), C.size_t(n))
}
