// The compression function of SHA-256 (FIPS 180-4), by the processor's own
// instructions. Both keep no pointer between calls.
#include <stddef.h>
#include <stdint.h>

// berth_sha256_usable reports whether the processor has the instructions.
int berth_sha256_usable(void);

// berth_sha256_one adds n blocks at p to a state of eight words.
void berth_sha256_one(uint32_t *state, const uint8_t *p, size_t n);

// berth_sha256_two does so to two states at once, n blocks each.
void berth_sha256_two(uint32_t *state1, const uint8_t *p1, uint32_t *state2, const uint8_t *p2, size_t n);
