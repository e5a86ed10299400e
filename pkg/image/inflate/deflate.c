#include "deflate.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

// The phases of a state.
enum { HEADER, STORED, CODED, ENDED };

enum { LITERALS = 288, DISTANCES = 32, LITERAL_BITS = 11, DISTANCE_BITS = 8, MAX_LENGTH = 15 };

// An entry of a table. Its low byte is how many bits it takes, extra bits of a
// value included.
//
//   literal   LITERAL | symbol << 16 | bits
//   value     base << 16 | bits of the code << 8 | bits with extra ones
//   subtable  OTHER | SUBTABLE | first entry << 16 | bits of it << 8 | bits
//   end       OTHER | END | bits
//   invalid   OTHER
#define LITERAL (1u << 31)
#define OTHER (1u << 15)
#define SUBTABLE (1u << 14)
#define END (1u << 13)
#define CODE_BITS(e) (((e) >> 8) & 0x1f)

static const uint16_t length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
					 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t distance_base[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
					   193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t length_order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

enum code { LITERAL_CODE, DISTANCE_CODE, LENGTH_CODE };

// entry returns what a table says of a symbol, but for the bits of its code.
static uint32_t entry(enum code code, unsigned symbol, unsigned bits) {
	unsigned extra;
	switch (code) {
	case LENGTH_CODE:
		return symbol << 16 | bits;
	case DISTANCE_CODE:
		if (symbol >= 30)
			return OTHER;
		extra = symbol < 4 ? 0 : symbol / 2 - 1;
		return (uint32_t)distance_base[symbol] << 16 | bits << 8 | (bits + extra);
	default:
		if (symbol < 256)
			return LITERAL | symbol << 16 | bits;
		if (symbol == 256)
			return OTHER | END | bits;
		if (symbol >= 286)
			return OTHER;
		extra = length_extra[symbol - 257];
		return (uint32_t)length_base[symbol - 257] << 16 | bits << 8 | (bits + extra);
	}
}

static unsigned reversed(unsigned code, unsigned bits) {
	unsigned r = 0;
	for (; bits > 0; bits--, code >>= 1)
		r = r << 1 | (code & 1);
	return r;
}

// build makes the table of a canonical code. The code must be complete, but for
// one that is empty or has a single symbol of one bit: what Go's decoder takes.
static int build(uint32_t *table, unsigned size, unsigned root, enum code code, const uint8_t *lengths, unsigned n) {
	unsigned count[MAX_LENGTH + 2] = {0}, next[MAX_LENGTH + 2];
	uint16_t sorted[LITERALS];
	unsigned longest = 0, total = 0, i;
	for (i = 0; i < n; i++) {
		if (lengths[i] > MAX_LENGTH)
			return 0;
		count[lengths[i]]++;
		if (lengths[i] > longest)
			longest = lengths[i];
	}
	count[0] = 0;
	unsigned space = 0;
	for (i = 1; i <= MAX_LENGTH; i++) {
		next[i] = total;
		total += count[i];
		space = (space << 1) + count[i];
		if (space > 1u << i)
			return 0;
	}
	if (total != 0 && space != 1u << MAX_LENGTH && !(total == 1 && longest == 1))
		return 0;
	for (i = 0; i < n; i++)
		if (lengths[i] != 0)
			sorted[next[lengths[i]]++] = i;

	unsigned filled = 1u << root;
	if (total < 2)
		for (i = 0; i < filled; i++)
			table[i] = OTHER;
	unsigned word = 0, at = 0, sub = 0, sub_bits = 0, prefix = ~0u;
	for (unsigned bits = 1; bits <= longest; bits++, word <<= 1) {
		for (unsigned left = count[bits]; left > 0; left--, word++) {
			unsigned symbol = sorted[at++], r = reversed(word, bits);
			if (bits <= root) {
				uint32_t e = entry(code, symbol, bits);
				for (i = r; i < 1u << root; i += 1u << bits)
					table[i] = e;
				continue;
			}
			if ((r & ((1u << root) - 1)) != prefix) {
				prefix = r & ((1u << root) - 1);
				sub_bits = bits - root;
				for (unsigned have = left; have < 1u << sub_bits && root + sub_bits < longest;) {
					sub_bits++;
					have = (have << 1) + count[root + sub_bits];
				}
				sub = filled;
				filled += 1u << sub_bits;
				if (filled > size)
					return 0;
				table[prefix] = OTHER | SUBTABLE | sub << 16 | sub_bits << 8 | root;
			}
			uint32_t e = entry(code, symbol, bits - root);
			for (i = r >> root; i < 1u << sub_bits; i += 1u << (bits - root))
				table[sub + i] = e;
		}
	}
	return 1;
}

int berth_inflate_restore(struct berth_inflate *s) {
	if (s->phase > ENDED || s->nbits > 7 || s->bits >> s->nbits != 0 || s->final > 1 || s->stored > 0xffff)
		return 0;
	if (s->phase != CODED)
		return 1;
	return build(s->literals, sizeof s->literals / 4, LITERAL_BITS, LITERAL_CODE, s->lengths, LITERALS) &&
	       build(s->distances, sizeof s->distances / 4, DISTANCE_BITS, DISTANCE_CODE, s->lengths + LITERALS, DISTANCES);
}

// bitreader reads bits from in, up to BERTH_PAD bytes beyond end, where what
// has been read is not valid: see over.
struct bitreader {
	const uint8_t *in, *end;
	uint64_t bits;
	unsigned n; // modulo 64, where symbols counts down
};

// refill makes n at least 56.
INLINE void refill(struct bitreader *b) {
	uint64_t word;
	memcpy(&word, b->in, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	word = __builtin_bswap64(word);
#endif
	b->bits |= word << (b->n & 63);
	b->in += (~b->n >> 3) & 7;
	b->n |= 56;
}

INLINE void drop(struct bitreader *b, unsigned n) {
	b->bits >>= n;
	b->n -= n;
}

// use takes the bits of an entry, whose low byte they are, before it is known
// what the entry is: so what comes next is looked up the sooner. It returns what
// the bits were.
INLINE uint64_t use(struct bitreader *b, uint32_t e) {
	uint64_t bits = b->bits;
	b->bits >>= e & 63;
	b->n -= e;
	return bits;
}

INLINE uint64_t low(uint64_t bits, unsigned n) { return bits & (((uint64_t)1 << n) - 1); }

INLINE unsigned take(struct bitreader *b, unsigned n) {
	unsigned v = low(b->bits, n);
	drop(b, n);
	return v;
}

// over tells whether bits beyond the end have been used.
INLINE int over(const struct bitreader *b) { return b->in - ((b->n & 63) >> 3) > b->end; }

static int fixed(struct berth_inflate *s) {
	memset(s->lengths, 8, 144);
	memset(s->lengths + 144, 9, 112);
	memset(s->lengths + 256, 7, 24);
	memset(s->lengths + 280, 8, 8);
	memset(s->lengths + LITERALS, 5, DISTANCES);
	return berth_inflate_restore(s);
}

static int dynamic(struct berth_inflate *s, struct bitreader *b) {
	uint8_t all[LITERALS + DISTANCES] = {0}, lengths[19] = {0};
	uint32_t table[1 << 7];
	refill(b);
	unsigned literals = take(b, 5) + 257, distances = take(b, 5) + 1, n = take(b, 4) + 4;
	if (literals > 286 || distances > 30)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		refill(b);
		lengths[length_order[i]] = take(b, 3);
	}
	if (!build(table, 1 << 7, 7, LENGTH_CODE, lengths, 19))
		return 0;
	for (unsigned i = 0; i < literals + distances;) {
		if (over(b))
			return 0;
		refill(b);
		uint32_t e = table[low(b->bits, 7)];
		if (e & OTHER)
			return 0;
		drop(b, e & 0xff);
		unsigned symbol = e >> 16, value = 0, repeat;
		if (symbol < 16) {
			all[i++] = symbol;
			continue;
		}
		switch (symbol) {
		case 16:
			if (i == 0)
				return 0;
			value = all[i - 1];
			repeat = 3 + take(b, 2);
			break;
		case 17:
			repeat = 3 + take(b, 3);
			break;
		default:
			repeat = 11 + take(b, 7);
		}
		if (i + repeat > literals + distances)
			return 0;
		memset(all + i, value, repeat);
		i += repeat;
	}
	memset(s->lengths, 0, sizeof s->lengths);
	memcpy(s->lengths, all, literals);
	memcpy(s->lengths + LITERALS, all + literals, distances);
	return berth_inflate_restore(s);
}

// header reads the header of a block.
static int header(struct berth_inflate *s, struct bitreader *b) {
	refill(b);
	s->final = take(b, 1);
	s->phase = CODED;
	switch (take(b, 2)) {
	case 0:
		drop(b, b->n & 7);
		unsigned n = take(b, 16), inverse = take(b, 16);
		s->phase = STORED;
		s->stored = n;
		return (n ^ inverse) == 0xffff;
	case 1:
		return fixed(s);
	case 2:
		return dynamic(s, b);
	}
	return 0;
}

// copy writes a match, and up to 40 bytes beyond it.
INLINE void copy(uint8_t *out, unsigned length, unsigned distance) {
	const uint8_t *from = out - distance, *end = out + length;
	if (distance >= 16) {
		memcpy(out, from, 16);
		memcpy(out + 16, from + 16, 16);
		for (out += 32, from += 32; out < end; out += 16, from += 16)
			memcpy(out, from, 16);
	} else if (distance >= 8) {
		for (; out < end; out += 8, from += 8)
			memcpy(out, from, 8);
	} else if (distance == 1) {
		for (; out < end; out += 16)
			memset(out, *from, 16);
	} else {
		// Each step makes another distance bytes right, of the eight it writes.
		for (uint64_t word; out < end; out += distance) {
			memcpy(&word, from, 8);
			memcpy(out, &word, 8);
		}
	}
}

// symbols decodes symbols of a block. careful is for the end of the last input,
// where it looks after each symbol whether input was left.
INLINE int symbols(struct berth_inflate *s, struct bitreader *reader, const uint8_t *buf, uint8_t **at, const uint8_t *full, const int careful) {
	struct bitreader b = *reader;
	uint8_t *out = *at;
	int result;
	// An iteration reads 8 bytes at most three times, each from at most 8 bytes
	// further on than the one before.
	const uint8_t *safe = b.end - (careful ? 0 : 32);
	refill(&b);
	uint32_t e = s->literals[low(b.bits, LITERAL_BITS)];
	for (;;) {
		// Here at least 56 bits are read, and e is the entry of the next symbol.
		if (careful ? over(&b) : b.in > safe) {
			result = careful ? BERTH_TRUNCATED : BERTH_MORE_IN;
			break;
		}
		if (out > full) {
			result = BERTH_MORE_OUT;
			break;
		}
		uint64_t bits = use(&b, e);
		if (e & LITERAL) {
			*out++ = e >> 16;
			e = s->literals[low(b.bits, LITERAL_BITS)];
			bits = use(&b, e);
			if (e & LITERAL) {
				*out++ = e >> 16;
				e = s->literals[low(b.bits, LITERAL_BITS)];
				bits = use(&b, e);
				if (e & LITERAL) {
					*out++ = e >> 16;
					e = s->literals[low(b.bits, LITERAL_BITS)];
					refill(&b);
					continue;
				}
			}
		}
		// Of 56 bits, two literals took at most 22, and a length takes at most 20.
		if (e & OTHER) {
			if (e & SUBTABLE) {
				e = s->literals[((e >> 16) & 0xfff) + low(b.bits, CODE_BITS(e))];
				bits = use(&b, e);
			}
			if (e & LITERAL) {
				*out++ = e >> 16;
				refill(&b);
				e = s->literals[low(b.bits, LITERAL_BITS)];
				continue;
			}
			if (e & OTHER) {
				result = BERTH_CORRUPT;
				if (e & END) {
					s->phase = s->final ? ENDED : HEADER;
					result = BERTH_END;
				}
				break;
			}
		}
		unsigned length = (e >> 16) + (low(bits, (uint8_t)e) >> CODE_BITS(e));
		e = s->distances[low(b.bits, DISTANCE_BITS)];
		refill(&b);
		bits = use(&b, e);
		if (e & OTHER) {
			if (e & SUBTABLE) {
				e = s->distances[((e >> 16) & 0xfff) + low(b.bits, CODE_BITS(e))];
				bits = use(&b, e);
			}
			if (e & OTHER) {
				result = BERTH_CORRUPT;
				break;
			}
		}
		size_t distance = (e >> 16) + (low(bits, (uint8_t)e) >> CODE_BITS(e));
		if (distance > (size_t)(out - buf)) {
			result = BERTH_CORRUPT;
			break;
		}
		e = s->literals[low(b.bits, LITERAL_BITS)];
		refill(&b);
		copy(out, length, distance);
		out += length;
	}
	b.n &= 63;
	*reader = b;
	*at = out;
	return result;
}

typedef int symbols_fn(struct berth_inflate *, struct bitreader *, const uint8_t *, uint8_t **, const uint8_t *);

static int symbols_careful(struct berth_inflate *s, struct bitreader *b, const uint8_t *buf, uint8_t **at, const uint8_t *full) {
	return symbols(s, b, buf, at, full, 1);
}

static int symbols_any(struct berth_inflate *s, struct bitreader *b, const uint8_t *buf, uint8_t **at, const uint8_t *full) {
	return symbols(s, b, buf, at, full, 0);
}

#if defined(__x86_64__)
// BMI2 has shifts by a register that need not be cl.
__attribute__((target("bmi,bmi2"))) static int symbols_bmi2(struct berth_inflate *s, struct bitreader *b, const uint8_t *buf, uint8_t **at, const uint8_t *full) {
	return symbols(s, b, buf, at, full, 0);
}

static symbols_fn *symbols_fast(void) { return __builtin_cpu_supports("bmi2") ? symbols_bmi2 : symbols_any; }
#else
static symbols_fn *symbols_fast(void) { return symbols_any; }
#endif

// back gives back the bytes that were read ahead, which were read in this call
// since fewer than 8 bits were left of the one before.
INLINE void back(struct bitreader *b) {
	b->in -= b->n >> 3;
	b->n &= 7;
	b->bits = low(b->bits, b->n);
}

// stored copies what it can of a stored block. The reader is at a byte.
static int stored(struct berth_inflate *s, struct bitreader *b, uint8_t **at, const uint8_t *full, int last) {
	back(b);
	if (b->in > b->end)
		return BERTH_TRUNCATED;
	size_t n = s->stored;
	if (n > (size_t)(b->end - b->in))
		n = b->end - b->in;
	if (*at >= full)
		n = 0;
	else if (n > (size_t)(full - *at))
		n = full - *at;
	memcpy(*at, b->in, n);
	*at += n, b->in += n, s->stored -= n;
	if (s->stored == 0) {
		s->phase = s->final ? ENDED : HEADER;
		return BERTH_END;
	}
	if (b->in < b->end)
		return BERTH_MORE_OUT;
	return last ? BERTH_TRUNCATED : BERTH_MORE_IN;
}

int berth_inflate(struct berth_inflate *s, const uint8_t *in, size_t n, int last, uint8_t *buf, size_t history, size_t size) {
	struct bitreader b = {in, in + n, s->bits, s->nbits};
	uint8_t *out = buf + history;
	const uint8_t *full = buf + size - BERTH_ROOM; // beyond this no symbol begins
	int result = BERTH_END;
	while (result == BERTH_END && s->phase != ENDED) {
		switch (s->phase) {
		case HEADER:
			back(&b);
			if (!last && b.end - b.in < BERTH_HEADER_MAX) {
				result = BERTH_MORE_IN;
				break;
			}
			if (!header(s, &b))
				result = BERTH_CORRUPT;
			if (over(&b))
				result = BERTH_TRUNCATED;
			break;
		case STORED:
			result = stored(s, &b, &out, full, last);
			break;
		default:
			result = symbols_fast()(s, &b, buf, &out, full);
			if (result == BERTH_MORE_IN && last)
				result = symbols_careful(s, &b, buf, &out, full);
			if (over(&b))
				result = BERTH_TRUNCATED;
		}
	}
	back(&b);
	s->bits = b.bits;
	s->nbits = b.n;
	s->used = b.in - in;
	s->made = out - (buf + history);
	return result;
}
