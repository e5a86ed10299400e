// A decoder of DEFLATE (RFC 1951) that can stop and go on at any symbol, in this
// process or another. It allocates nothing and keeps no pointer between calls.
#include <stddef.h>
#include <stdint.h>

enum {
	BERTH_MORE_IN = 0,    // needs more input than it was given
	BERTH_MORE_OUT = 1,   // needs more room for output
	BERTH_END = 2,        // the stream has ended
	BERTH_CORRUPT = -1,   // the stream is not DEFLATE
	BERTH_TRUNCATED = -2, // the last input ended before the stream did
};

enum {
	BERTH_HEADER_MAX = 1024, // more than the longest header of a block
	BERTH_PAD = 64,          // what must be readable after the input
	BERTH_ROOM = 384,        // without so much room no symbol is decoded
	BERTH_HISTORY = 32768,   // how far back a match may reach
	BERTH_LENGTHS = 288 + 32,
};

struct berth_inflate {
	// The position: bits of the last byte that was used, and the block.
	uint32_t bits, nbits; // fewer than 8
	uint32_t phase, final, stored;
	uint8_t lengths[BERTH_LENGTHS]; // of the block's codes: 288 literals, then distances

	uint32_t used, made; // by the last call, in bytes

	uint32_t literals[2400], distances[512]; // tables made of lengths
};

// berth_inflate decodes from in, of n bytes and BERTH_PAD that may be read, to
// buf: history bytes are there, and size is the end of its room. last says that
// no more input will come.
int berth_inflate(struct berth_inflate *s, const uint8_t *in, size_t n, int last, uint8_t *buf, size_t history, size_t size);

// berth_inflate_restore makes the tables of a state whose position was set.
int berth_inflate_restore(struct berth_inflate *s);
