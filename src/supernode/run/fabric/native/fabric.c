// Collectives between the processes of one host, over shared memory.
//
// A collective streams its tensors through the two windows at the start of each arena: fill the
// own window, arrive, read the windows of the others, release them. Reductions go in the order of
// the group, element by element, so every rank gets the same bits.
#include "meeting.h"
#include "reduce.h"

#include <sys/mman.h>

enum { ONE_PHASE_BYTES = 65536 };
enum kind {
    BARRIER,
    ALL_REDUCE,
    ALL_REDUCE_IN_PLACE,
    REDUCE_SCATTER,
    ALL_GATHER,
    ALL_TO_ALL,
    ALL_TO_ALL_ROWS
};

// A tensor as a list of equal pieces, each a run of rows: what one rank sends to or gets from one.
typedef struct {
    char *base;
    int64_t piece_stride, rows, row_bytes, row_stride;
} Segment;

// Bytes [at, at + bytes) of one piece of the tensors, into flat memory or back.
static void move(const Segment *s, int64_t segments, int64_t piece, int64_t at, char *flat,
                 int64_t bytes, int back) {
    for (; segments-- && bytes; s++) {
        int64_t size = s->rows * s->row_bytes;
        if (at >= size) {
            at -= size;
            continue;
        }
        int64_t row = at / s->row_bytes, column = at % s->row_bytes;
        for (; bytes && row < s->rows; row++, column = 0) {
            int64_t length = least(s->row_bytes - column, bytes);
            char *tensor = s->base + piece * s->piece_stride + row * s->row_stride + column;
            memcpy(back ? tensor : flat, back ? flat : tensor, (size_t)length);
            flat += length, bytes -= length;
        }
        at = 0;
    }
}

static void share(const Call *c, int64_t bytes, int64_t member, int64_t *low, int64_t *high) {
    int64_t part = lines_up((bytes + c->size - 1) / c->size);
    *low = least(member * part, bytes), *high = least(*low + part, bytes);
}

// ---- collectives ---------------------------------------------------------------------------

// Reduces `bytes` of every source straight into the receiving tensors, from their byte `at` on.
static void reduce_out(const Call *c, char *const *from, const Segment *recv, int64_t segments,
                       int64_t at, int64_t bytes) {
    alignas(CACHE_LINE) char block[BLOCK_BYTES];
    for (int64_t done = 0; done < bytes; done += BLOCK_BYTES) {
        int64_t length = least(BLOCK_BYTES, bytes - done);
        reduce_of[c->dtype](block, from, c->size, done, length, c->op);
        move(recv, segments, 0, at + done, block, length, 1);
    }
}

// Every rank reduces its share and puts the result into the memory of `copies` members.
static void reduce_share(const Call *c, char *const *from, char *const *to, int64_t copies,
                         int64_t bytes) {
    alignas(CACHE_LINE) char block[BLOCK_BYTES];
    int64_t low, high;
    share(c, bytes, c->me, &low, &high);
    for (; low < high; low += BLOCK_BYTES) {
        int64_t length = least(BLOCK_BYTES, high - low);
        reduce_of[c->dtype](block, from, c->size, low, length, c->op);
        for (int64_t i = 0; i < copies; i++) memcpy(to[i] + low, block, (size_t)length);
    }
}

// After the arrival at `offset`: everyone's data, reduced or as it is, into the receiving tensors.
static int consume(Call *c, char **windows, int64_t offset, int64_t room, const Segment *recv,
                   int64_t segments, int64_t at, int64_t bytes) {
    int status, reduces = c->kind == ALL_REDUCE || c->kind == REDUCE_SCATTER;
    if (reduces && (status = await_all(c, windows)) != DONE) return status;
    if (reduces && (c->kind == REDUCE_SCATTER || bytes <= ONE_PHASE_BYTES)) {
        char *from[c->size];
        for (int64_t i = 0; i < c->size; i++)
            from[i] = windows[i] + (c->kind == REDUCE_SCATTER ? c->me * room : 0);
        reduce_out(c, from, recv, segments, at, bytes);
        return DONE;
    }
    if (reduces) {
        reduce_share(c, windows, &windows[c->me], 1, bytes);
        arrive(c, offset, windows);
    }
    for (int64_t k = 1; k <= c->size; k++) {  // start with the neighbour: everyone reads another
        int64_t i = (c->me + k) % c->size, low = 0, high = bytes;
        if ((status = await_member(c, i, &windows[i])) != DONE) return status;
        if (reduces) share(c, bytes, i, &low, &high);
        char *from = windows[i] + (c->kind == ALL_TO_ALL ? c->me * room : low);
        move(recv, segments, reduces ? 0 : i, at + low, from, high - low, 1);
    }
    return DONE;
}

static Call meeting(Fabric *f, int kind, int dtype, int op, const int32_t *group, int64_t size,
                    int64_t bytes) {
    Call c = {f, group, size, 0, kind, dtype, op, 0};
    while (group[c.me] != f->rank) c.me++;
    c.tag = (uint64_t)kind << 60 | (uint64_t)dtype << 56 | (uint64_t)op << 52 |
            (uint64_t)size << 40 | (uint64_t)bytes;
    return c;
}

int sn_barrier(Fabric *f, const int32_t *group, int64_t size) {
    Call c = meeting(f, BARRIER, 0, 0, group, size, 0);
    char *nothing[size];
    if (is_aborted(f)) return ABORTED;
    arrive(&c, 0, nothing);
    return await_all(&c, nothing);
}

// `bytes` counts one piece over all segments.
int sn_collective(Fabric *f, int kind, int dtype, int op, const int32_t *group, int64_t size,
                  const Segment *send, const Segment *recv, int64_t segments, int64_t bytes) {
    Call c = meeting(f, kind, dtype, op, group, size, bytes);
    int64_t pieces = kind == REDUCE_SCATTER || kind == ALL_TO_ALL ? size : 1;
    int64_t room = (int64_t)f->header->window_bytes / pieces & -CACHE_LINE;
    char *windows[size];
    int window, status;
    for (int64_t at = 0; at < bytes; at += room) {
        int64_t length = least(room, bytes - at);
        if (is_aborted(f)) return ABORTED;
        if ((status = claim(f, &window)) != DONE) return status;
        int64_t offset = window * (int64_t)f->header->window_bytes;
        for (int64_t p = 0; p < pieces; p++)
            move(send, segments, p, at, f->arenas[f->rank] + offset + p * room, length, 0);
        arrive(&c, offset, windows);
        status = consume(&c, windows, offset, room, recv, segments, at, length);
        if (status != DONE) return status;
        release(&c, window);
    }
    return DONE;
}

// After the arrival: what window `at` holds for this rank. `most` becomes the most bytes that any
// member has for any other.
static int consume_rows(Call *c, char **windows, int64_t head, int64_t room, char *recv,
                        const int64_t *recv_bytes, int64_t at, int64_t *most) {
    for (int64_t i = 0; i < c->size; recv += recv_bytes[i++]) {
        int status = await_member(c, i, &windows[i]);
        if (status != DONE) return status;
        const int64_t *sizes = (const int64_t *)windows[i];
        for (int64_t k = 0; k < c->size; k++) *most = sizes[k] > *most ? sizes[k] : *most;
        if (sizes[c->me] != recv_bytes[i]) {
            c->fabric->culprit = c->group[i];
            c->fabric->tags[0] = (c->tag >> 40 << 40) | (uint64_t)recv_bytes[i];
            c->fabric->tags[1] = (c->tag >> 40 << 40) | (uint64_t)sizes[c->me];
            return MISMATCH;
        }
        if (recv_bytes[i] > at)
            memcpy(recv + at, windows[i] + head + c->me * room,
                   (size_t)least(recv_bytes[i] - at, room));
    }
    return DONE;
}

// `send_bytes[i]` of `send`, one after the other, go to member i; its own come into `recv`. Windows
// follow until the longest of all pieces is through; each begins with the sizes of its pieces.
int sn_exchange(Fabric *f, const int32_t *group, int64_t size, int64_t row_bytes, const char *send,
                const int64_t *send_bytes, char *recv, const int64_t *recv_bytes) {
    Call c = meeting(f, ALL_TO_ALL_ROWS, 0, 0, group, size, row_bytes);
    int64_t head = lines_up(size * (int64_t)sizeof *send_bytes), most = 1;
    int64_t room = ((int64_t)f->header->window_bytes - head) / size & -CACHE_LINE;
    char *windows[size];
    int window, status;
    for (int64_t at = 0; at < most; at += room) {
        if (is_aborted(f)) return ABORTED;
        if ((status = claim(f, &window)) != DONE) return status;
        int64_t offset = window * (int64_t)f->header->window_bytes;
        char *own = f->arenas[f->rank] + offset;
        memcpy(own, send_bytes, (size_t)size * sizeof *send_bytes);
        const char *from = send;
        for (int64_t i = 0; i < size; from += send_bytes[i++])
            if (send_bytes[i] > at)
                memcpy(own + head + i * room, from + at, (size_t)least(send_bytes[i] - at, room));
        arrive(&c, offset, windows);
        status = consume_rows(&c, windows, head, room, recv, recv_bytes, at, &most);
        if (status != DONE) return status;
        release(&c, window);
    }
    return DONE;
}

// The tensors lie in the arenas, each at its own offset: the shares are put where they belong.
int sn_all_reduce_in_place(Fabric *f, int dtype, int op, const int32_t *group, int64_t size,
                           int64_t offset, int64_t bytes) {
    Call c = meeting(f, ALL_REDUCE_IN_PLACE, dtype, op, group, size, bytes);
    char *tensors[size];
    if (is_aborted(f)) return ABORTED;
    arrive(&c, offset, tensors);
    int status = await_all(&c, tensors);
    if (status != DONE) return status;
    reduce_share(&c, tensors, tensors, size, bytes);
    arrive(&c, offset, tensors);
    return await_all(&c, tensors);
}

// New memory of large results: one fault for 2 MiB costs a fraction of 512 faults for 4 KiB.
void sn_prefer_huge_pages(char *memory, int64_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), low = ((uintptr_t)memory + page - 1) & -page;
    madvise((void *)low, (size_t)((uintptr_t)memory + (uintptr_t)bytes - low), MADV_HUGEPAGE);
}
