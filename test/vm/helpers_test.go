package vm_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

func sha256sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// fill makes data that half compresses.
func fill(r *rand.Rand, data []byte) {
	for n := 0; n+8 <= len(data); n += 16 {
		binary.LittleEndian.PutUint64(data[n:], r.Uint64())
	}
}
