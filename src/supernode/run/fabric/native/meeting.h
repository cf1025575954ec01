// Where the ranks of one host meet: the control segment, waking and waiting, arriving and
// releasing. All state lives in shared memory, none in a process. A pair of ranks (to, from)
// shares one `Line`, written by `from` alone, which counts the meetings of the two. Two ranks
// meet in the same order whatever groups they meet in, so counters per pair stay right when
// groups interleave.
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CACHE_LINE = 64, SLOTS = 256, REASON_BYTES = 512 };
enum { AWAKE_NS = 50000 };  // a wait sleeps after that: a futex takes about as long to wake
enum status { DONE, ABORTED, LATE, READING, MISMATCH };

typedef struct {
    uint64_t world, window_bytes;
    _Atomic uint32_t aborted;  // 0, or 1 + the writer whose reason counts
} Header;

typedef struct {
    alignas(CACHE_LINE) _Atomic uint32_t bell;  // futex word of everything this rank waits for
    _Atomic uint32_t sleepers;
    uint64_t windows_used;
    alignas(CACHE_LINE) int32_t blamed;
    char reason[REASON_BYTES - sizeof(int32_t)];
} Rank;

typedef struct {
    alignas(CACHE_LINE) _Atomic uint64_t arrived;  // meetings `from` has come to
    _Atomic uint64_t released;  // the last meeting whose data `from` has finished reading
    uint64_t tag[2];            // what `from` came for, by parity of the meeting
    int64_t offset[2];          // where its data lies in its arena, by parity
    uint64_t owed[2];           // what `to` must have released before `from` refills a window
} Line;

typedef struct { alignas(CACHE_LINE) _Atomic uint64_t value; } Slot;

typedef struct {
    Header *header;
    Rank *ranks;  // one a rank, and one for the parent
    Line *lines;
    Slot *slots;
    int64_t world, rank;
    int looks;                // at a word between two yields
    uint64_t deadline_ns;
    int64_t culprit;         // of the last MISMATCH
    uint64_t tags[2];        // own tag and the culprit's
    char *arenas[];
} Fabric;

typedef struct {
    Fabric *fabric;
    const int32_t *group;
    int64_t size, me;  // members, own place among them
    int kind, dtype, op;
    uint64_t tag;
} Call;

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t lines_up(int64_t bytes) { return (bytes + CACHE_LINE - 1) & -CACHE_LINE; }

static inline Line *line(Fabric *f, int64_t to, int64_t from) {
    return &f->lines[to * f->world + from];
}

static inline int is_aborted(Fabric *f) {
    return atomic_load(&f->header->aborted) != 0;
}

// ---- layout --------------------------------------------------------------------------------

int64_t sn_control_bytes(int64_t world) {
    return lines_up(sizeof(Header)) + (world + 1) * (int64_t)sizeof(Rank) +
           world * world * (int64_t)sizeof(Line) + world * SLOTS * (int64_t)sizeof(Slot);
}

int64_t sn_slots(void) { return SLOTS; }

int64_t sn_fabric_bytes(int64_t world) { return sizeof(Fabric) + world * (int64_t)sizeof(char *); }

void sn_attach(Fabric *f, char *control, char *const *arenas, int64_t world, int64_t rank,
               int crowded, uint64_t deadline_ns) {
    f->header = (Header *)control;
    f->ranks = (Rank *)(control + lines_up(sizeof(Header)));
    f->lines = (Line *)(f->ranks + world + 1);
    f->slots = (Slot *)(f->lines + world * world);
    f->world = world, f->rank = rank, f->deadline_ns = deadline_ns;
    f->looks = crowded ? 1 : 64;
    for (int64_t r = 0; arenas && r < world; r++) f->arenas[r] = arenas[r];
}

// ---- waking and waiting --------------------------------------------------------------------

static void ring(Fabric *f, int64_t rank) {
    Rank *r = &f->ranks[rank];
    if (!atomic_load(&r->sleepers)) return;
    atomic_fetch_add(&r->bell, 1);
    syscall(SYS_futex, &r->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);  // not PRIVATE: processes
}

static int reached(_Atomic uint64_t *word, uint64_t value) {
    return atomic_load_explicit(word, memory_order_acquire) >= value;
}

// Sleeps until somebody rings. `sleepers` goes up before the last look at the word and a signaller
// looks at `sleepers` after it has written the word, so one of the two sees the other.
static void doze(Fabric *f, _Atomic uint64_t *word, uint64_t value, uint64_t left_ns) {
    Rank *me = &f->ranks[f->rank];
    struct timespec left = {(time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u)};
    atomic_fetch_add(&me->sleepers, 1);
    uint32_t bell = atomic_load(&me->bell);
    if (atomic_load(word) < value && !is_aborted(f))
        syscall(SYS_futex, &me->bell, FUTEX_WAIT, bell, &left, NULL, 0);
    atomic_fetch_sub(&me->sleepers, 1);
}

// Looks, yields and looks again for AWAKE_NS, then sleeps. A rank that has to share its core with
// the one it waits for gains tenfold by yielding; one with its own core loses a fraction of 1 µs.
static int await(Fabric *f, _Atomic uint64_t *word, uint64_t value) {
    if (reached(word, value)) return DONE;
    uint64_t start = now_ns(), spent = 0;
    while (spent < AWAKE_NS) {
        for (int i = 0; i < f->looks; i++) {
            if (reached(word, value)) return DONE;
            relax();
        }
        if (is_aborted(f)) return ABORTED;
        sched_yield();
        spent = now_ns() - start;
    }
    while (!reached(word, value)) {
        if (is_aborted(f)) return ABORTED;
        spent = now_ns() - start;
        if (spent >= f->deadline_ns) return LATE;
        doze(f, word, value, f->deadline_ns - spent);
    }
    return DONE;
}

void sn_abort(Fabric *f, int32_t blamed, const char *reason) {
    Rank *me = &f->ranks[f->rank];
    uint32_t none = 0;
    if (is_aborted(f)) return;
    me->blamed = blamed;
    strncpy(me->reason, reason, sizeof me->reason - 1);
    atomic_compare_exchange_strong(&f->header->aborted, &none, (uint32_t)f->rank + 1);
    for (int64_t r = 0; r < f->world; r++) ring(f, r);
}

const char *sn_abort_reason(Fabric *f, int32_t *blamed) {
    uint32_t writer = atomic_load(&f->header->aborted);
    if (!writer) return NULL;
    *blamed = f->ranks[writer - 1].blamed;
    return f->ranks[writer - 1].reason;
}

int sn_sleeps(Fabric *f, int64_t rank) {
    return atomic_load(&f->ranks[rank].sleepers) != 0;
}

void sn_signal(Fabric *f, int64_t rank, int64_t slot, uint64_t value) {
    atomic_store(&f->slots[rank * SLOTS + slot].value, value);
    ring(f, rank);
}

int sn_wait(Fabric *f, int64_t slot, uint64_t value) {
    if (is_aborted(f)) return ABORTED;
    return await(f, &f->slots[f->rank * SLOTS + slot].value, value);
}

uint64_t sn_slot_value(Fabric *f, int64_t slot) {
    return atomic_load(&f->slots[f->rank * SLOTS + slot].value);
}

// Marks the ranks that have not come to their last meeting with this one, or, with `reading`,
// those that still read the window it wants to refill.
void sn_missing(Fabric *f, int reading, unsigned char *missing) {
    int window = (int)((f->ranks[f->rank].windows_used - 1) & 1);
    for (int64_t r = 0; r < f->world; r++) {
        Line *mine = line(f, r, f->rank), *theirs = line(f, f->rank, r);
        uint64_t due = reading ? mine->owed[window] : atomic_load(&mine->arrived);
        missing[r] = r != f->rank && !reached(reading ? &theirs->released : &theirs->arrived, due);
    }
}

int64_t sn_mismatch(Fabric *f, uint64_t *tags) {
    tags[0] = f->tags[0], tags[1] = f->tags[1];
    return f->culprit;
}

// ---- meetings ------------------------------------------------------------------------------

static void ring_others(Call *c) {
    atomic_thread_fence(memory_order_seq_cst);
    for (int64_t i = 0; i < c->size; i++)
        if (i != c->me) ring(c->fabric, c->group[i]);
}

static void arrive(Call *c, int64_t offset, char **memory) {
    Fabric *f = c->fabric;
    memory[c->me] = f->arenas[f->rank] + offset;
    for (int64_t i = 0; i < c->size; i++) {
        if (i == c->me) continue;
        Line *mine = line(f, c->group[i], f->rank);
        uint64_t meeting = atomic_load_explicit(&mine->arrived, memory_order_relaxed) + 1;
        mine->tag[meeting & 1] = c->tag;
        mine->offset[meeting & 1] = offset;
        atomic_store_explicit(&mine->arrived, meeting, memory_order_release);
    }
    ring_others(c);
}

// Sets `memory` to where the member has its data for this meeting.
static int await_member(Call *c, int64_t member, char **memory) {
    Fabric *f = c->fabric;
    int64_t rank = c->group[member];
    if (member == c->me) return DONE;
    uint64_t meeting = atomic_load_explicit(&line(f, rank, f->rank)->arrived, memory_order_relaxed);
    Line *theirs = line(f, f->rank, rank);
    int status = await(f, &theirs->arrived, meeting);
    if (status != DONE) return status;
    *memory = f->arenas[rank] + theirs->offset[meeting & 1];
    if (theirs->tag[meeting & 1] == c->tag) return DONE;
    f->culprit = rank, f->tags[0] = c->tag, f->tags[1] = theirs->tag[meeting & 1];
    return MISMATCH;
}

static int await_all(Call *c, char **memory) {
    for (int64_t i = 0; i < c->size; i++) {
        int status = await_member(c, i, &memory[i]);
        if (status != DONE) return status;
    }
    return DONE;
}

// The next own window, once everyone who read its last contents has let go of them.
static int claim(Fabric *f, int *window) {
    *window = (int)(f->ranks[f->rank].windows_used++ & 1);
    for (int64_t r = 0; r < f->world; r++) {
        if (r == f->rank) continue;
        int status = await(f, &line(f, f->rank, r)->released, line(f, r, f->rank)->owed[*window]);
        if (status != DONE) return status == LATE ? READING : status;
    }
    return DONE;
}

static void release(Call *c, int window) {
    Fabric *f = c->fabric;
    for (int64_t i = 0; i < c->size; i++) {
        if (i == c->me) continue;
        Line *mine = line(f, c->group[i], f->rank);
        uint64_t meeting = atomic_load_explicit(&mine->arrived, memory_order_relaxed);
        mine->owed[window] = meeting;
        atomic_store_explicit(&mine->released, meeting, memory_order_release);
    }
    ring_others(c);
}
