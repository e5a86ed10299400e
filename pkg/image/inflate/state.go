package inflate

const stateVersion = 1

// The kinds of a State.
const (
	kindPlain = "plain"
	kindGzip  = "gzip"
	kindZstd  = "zstd"
)

// State is a position in a stream at which it can be opened again, by another
// process too. It holds no pointer and depends on no build of the decoder.
type State struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	Offset  int64  `json:"offset"` // in the compressed stream, in bytes

	// Inside of a gzip member; absent between two.
	Member *member `json:"member,omitempty"`
}

// member is a position inside of a gzip member.
type member struct {
	CRC     uint32 `json:"crc"`
	Size    uint32 `json:"size"` // modulo 2³², as the trailer has it
	Bits    uint32 `json:"bits"` // the last of the byte before, not used yet
	BitsLen uint32 `json:"bits_len"`
	Phase   uint32 `json:"phase"`
	Final   uint32 `json:"final"`
	Stored  uint32 `json:"stored"`
	Lengths []byte `json:"lengths"` // of the block's codes
	History []byte `json:"history"`
}
