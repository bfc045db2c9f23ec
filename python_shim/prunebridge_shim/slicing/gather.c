/*
 * Gathers the same kept runs of bytes from each line of a block.
 *
 * Kept positions come in runs of a few elements, too short for a call or for a loop whose end is guessed wrong. Each
 * run is copied by one load and one store of a fixed width instead; what that copies too much, the next run overwrites.
 * Where it would leave a buffer, runs are copied by their length.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Where a run of at most `width` bytes begins, in its line as it was and as it will be. */
typedef struct {
    uint32_t from, to;
} Run;

/* What is kept of a line: runs in ascending order, and their bytes in all. */
typedef struct {
    const Run *runs;
    size_t count, bytes;
} Kept;

INLINE void copy_wide(const uint8_t *restrict line, const Kept *kept, uint8_t *restrict to, size_t width)
{
    const Run *end = kept->runs + kept->count;
    for (const Run *run = kept->runs; run < end; run++)
        memcpy(to + run->to, line + run->from, width);
}

static void copy_near_end(const uint8_t *restrict line, const uint8_t *line_limit, const Kept *kept,
                          uint8_t *restrict to, const uint8_t *to_limit, size_t width)
{
    for (size_t i = 0; i < kept->count; i++) {
        const Run *run = &kept->runs[i];
        size_t length = (i + 1 < kept->count ? run[1].to : kept->bytes) - run->to;
        size_t readable = (size_t)(line_limit - line) - run->from;
        size_t writable = (size_t)(to_limit - to) - run->to;
        memcpy(to + run->to, line + run->from, readable < width || writable < width ? length : width);
    }
}

INLINE void gather_lines(const uint8_t *block, size_t block_bytes, const int64_t *lines, size_t line_count,
                         const Kept *kept, uint8_t *to, size_t width)
{
    const uint8_t *block_limit = block + block_bytes, *to_limit = to + line_count * kept->bytes;
    const Run last = kept->runs[kept->count - 1];
    for (size_t i = 0; i < line_count; i++, to += kept->bytes) {
        const uint8_t *line = block + lines[i];
        size_t readable = (size_t)(block_limit - line), writable = (size_t)(to_limit - to);
        if (readable >= last.from + width && writable >= last.to + width)
            copy_wide(line, kept, to, width);
        else
            copy_near_end(line, block_limit, kept, to, to_limit, width);
    }
}

/*
 * Fills `to` with the kept runs of all lines, one line after the other. `lines` says where in the block each begins.
 * There is at least one run. No run is longer than `width`, which is 16 or 64.
 */
void prunebridge_gather(const uint8_t *block, size_t block_bytes, const int64_t *lines, size_t line_count,
                        const Run *runs, size_t run_count, size_t kept_bytes, uint8_t *to, size_t width)
{
    const Kept kept = {runs, run_count, kept_bytes};
    if (width == 16)
        gather_lines(block, block_bytes, lines, line_count, &kept, to, 16);
    else
        gather_lines(block, block_bytes, lines, line_count, &kept, to, 64);
}
