#include "blocks.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("sha,sse4.1,ssse3")))
#define INLINE static inline __attribute__((always_inline)) TARGET

static const uint32_t constants[64] __attribute__((aligned(16))) = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

// lane is one stream: its state in the order that the instructions want, what
// that was before the block, and the last sixteen words of the schedule.
struct lane {
	__m128i abef, cdgh, abef0, cdgh0, words[4];
};

INLINE void get(struct lane *l, const uint32_t *state) {
	__m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
	__m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
	l->abef = _mm_alignr_epi8(badc, hgfe, 8);
	l->cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
}

INLINE void put(const struct lane *l, uint32_t *state) {
	__m128i feba = _mm_shuffle_epi32(l->abef, 0x1b), dchg = _mm_shuffle_epi32(l->cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
	_mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

INLINE void begin(struct lane *l, const uint8_t *block) {
	const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
	for (int i = 0; i < 4; i++)
		l->words[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), big_endian);
	l->abef0 = l->abef;
	l->cdgh0 = l->cdgh;
}

// rounds does rounds 4i to 4i+3.
INLINE void rounds(struct lane *l, int i) {
	__m128i *w = l->words, x;
	if (i >= 4) {
		x = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
		w[i & 3] = _mm_sha256msg2_epu32(x, w[(i + 3) & 3]);
	}
	x = _mm_add_epi32(w[i & 3], _mm_load_si128((const __m128i *)(constants + 4 * i)));
	l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, x);
	l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(x, 0x0e));
}

INLINE void end(struct lane *l) {
	l->abef = _mm_add_epi32(l->abef, l->abef0);
	l->cdgh = _mm_add_epi32(l->cdgh, l->cdgh0);
}

int berth_sha256_usable(void) {
	unsigned a, b, c, d;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return 0;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}

TARGET void berth_sha256_one(uint32_t *state, const uint8_t *p, size_t n) {
	struct lane l;
	get(&l, state);
	for (; n > 0; n--, p += 64) {
		begin(&l, p);
#pragma GCC unroll 16
		for (int i = 0; i < 16; i++)
			rounds(&l, i);
		end(&l);
	}
	put(&l, state);
}

// A round needs the one before it, for which it waits as long again as it takes:
// there the other lane's goes in.
TARGET void berth_sha256_two(uint32_t *state1, const uint8_t *p1, uint32_t *state2, const uint8_t *p2, size_t n) {
	struct lane l, m;
	get(&l, state1);
	get(&m, state2);
	for (; n > 0; n--, p1 += 64, p2 += 64) {
		begin(&l, p1);
		begin(&m, p2);
#pragma GCC unroll 16
		for (int i = 0; i < 16; i++) {
			rounds(&l, i);
			rounds(&m, i);
		}
		end(&l);
		end(&m);
	}
	put(&l, state1);
	put(&m, state2);
}

#else

int berth_sha256_usable(void) { return 0; }

void berth_sha256_one(uint32_t *state, const uint8_t *p, size_t n) {}

void berth_sha256_two(uint32_t *state1, const uint8_t *p1, uint32_t *state2, const uint8_t *p2, size_t n) {}

#endif
