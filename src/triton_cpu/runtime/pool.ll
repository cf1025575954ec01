; The thread pool: launches run the programs of a grid on native threads.
;
; @state = generation << 17 | open << 16 | joined. A launch writes @job, then sets the next
; generation open. A worker joins by adding one to `joined` while the job is open; the launcher
; closes it once all programs are handed out, and waits until `joined` is 0 again. A worker that
; wakes up late therefore never delays a launch. Idle workers spin for a while, then longer, giving
; way to other threads, then they sleep.

%Job = type { ptr, ptr, i32, i32, i32, i64, i64 } ; kernel, args, gx, gy, gz, programs, batch
%Launch = type { ptr, i64, i32, i32, i32, i32, i32, i32 } ; kernel, programs, grid, threads, aside

@job = internal global %Job zeroinitializer, align 64
@next = internal global i64 0, align 64
@state = internal global i64 0, align 64
@limit = internal global i32 0, align 64
@sleeping = internal global i32 0, align 64
@workers = internal global i32 0, align 64
@busy = internal global i32 0, align 64
@mutex = internal global [128 x i8] zeroinitializer, align 64
@wakeup = internal global [128 x i8] zeroinitializer, align 64

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_setdetachstate(ptr, i32)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()

define internal void @pause() alwaysinline {
  PAUSE
  ret void
}

; Hands out batches of programs until none are left.
define internal void @work() {
entry:
  %kernel = load ptr, ptr @job
  %args.p = getelementptr %Job, ptr @job, i32 0, i32 1
  %args = load ptr, ptr %args.p
  %gx.p = getelementptr %Job, ptr @job, i32 0, i32 2
  %gx = load i32, ptr %gx.p
  %gy.p = getelementptr %Job, ptr @job, i32 0, i32 3
  %gy = load i32, ptr %gy.p
  %gz.p = getelementptr %Job, ptr @job, i32 0, i32 4
  %gz = load i32, ptr %gz.p
  %count.p = getelementptr %Job, ptr @job, i32 0, i32 5
  %count = load i64, ptr %count.p
  %batch.p = getelementptr %Job, ptr @job, i32 0, i32 6
  %batch = load i64, ptr %batch.p
  br label %turn
turn:
  %start = atomicrmw add ptr @next, i64 %batch monotonic
  %none = icmp sge i64 %start, %count
  br i1 %none, label %done, label %run
run:
  %stop = add i64 %start, %batch
  %within = icmp slt i64 %stop, %count
  %end = select i1 %within, i64 %stop, i64 %count
  call void %kernel(ptr %args, i32 %gx, i32 %gy, i32 %gz, i64 %start, i64 %end)
  br label %turn
done:
  ret void
}

define internal ptr @worker(ptr %unused) {
entry:
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %seen, %woken ], [ %generation, %worked ], [ %generation, %full ]
  br label %look
look:
  %spins = phi i32 [ 0, %idle ], [ %more, %awake ], [ %more, %yield ]
  %now = load atomic i64, ptr @state seq_cst, align 64
  %generation = lshr i64 %now, 17
  %fresh = icmp ne i64 %generation, %seen
  %open.bit = and i64 %now, 65536
  %open = icmp ne i64 %open.bit, 0
  %ready = and i1 %fresh, %open
  br i1 %ready, label %join, label %again
join:
  %joined = and i64 %now, 65535
  %joined32 = trunc i64 %joined to i32
  %most = load atomic i32, ptr @limit monotonic, align 64
  %room = icmp slt i32 %joined32, %most
  br i1 %room, label %enter, label %full
full:
  br label %idle
enter:
  %plus = add i64 %now, 1
  %swap = cmpxchg ptr @state, i64 %now, i64 %plus seq_cst seq_cst
  %in = extractvalue { i64, i1 } %swap, 1
  br i1 %in, label %worked, label %again
worked:
  call void @work()
  %left = atomicrmw sub ptr @state, i64 1 seq_cst
  br label %idle
again:
  call void @pause()
  %more = add i32 %spins, 1
  %tired = icmp sgt i32 %more, LOOKS
  br i1 %tired, label %sleep, label %awake
awake:
  %polite = icmp sgt i32 %more, SPINS
  br i1 %polite, label %yield, label %look
yield:
  %y = call i32 @sched_yield()
  br label %look
sleep:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %s0 = atomicrmw add ptr @sleeping, i32 1 seq_cst
  %check = load atomic i64, ptr @state seq_cst, align 64
  %check.generation = lshr i64 %check, 17
  %check.fresh = icmp ne i64 %check.generation, %seen
  %check.open = and i64 %check, 65536
  %check.isopen = icmp ne i64 %check.open, 0
  %stay = and i1 %check.fresh, %check.isopen
  br i1 %stay, label %woken, label %wait
wait:
  %w = call i32 @pthread_cond_wait(ptr @wakeup, ptr @mutex)
  br label %woken
woken:
  %s1 = atomicrmw sub ptr @sleeping, i32 1 seq_cst
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %idle
}

; Before the first launch, and in the child after a fork.
define void @pool_reset() {
  %m = call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr @wakeup, ptr null)
  store i64 0, ptr @state
  store i32 0, ptr @sleeping
  store i32 0, ptr @workers
  store i32 0, ptr @busy
  ret void
}

; Starts workers until there are `wanted`; gives how many there are.
define i32 @pool_grow(i32 %wanted) {
entry:
  %attr = alloca [128 x i8], align 64
  %thread = alloca [16 x i8], align 16
  br label %test
test:
  %have = load i32, ptr @workers
  %enough = icmp sge i32 %have, %wanted
  br i1 %enough, label %done, label %start
start:
  %a = call i32 @pthread_attr_init(ptr %attr)
  %b = call i32 @pthread_attr_setstacksize(ptr %attr, i64 STACK)
  %d = call i32 @pthread_attr_setdetachstate(ptr %attr, i32 DETACHED)
  %e = call i32 @pthread_create(ptr %thread, ptr %attr, ptr @worker, ptr null)
  %failed = icmp ne i32 %e, 0
  br i1 %failed, label %done, label %count
count:
  %more = add i32 %have, 1
  store i32 %more, ptr @workers
  br label %test
done:
  %now = load i32, ptr @workers
  ret i32 %now
}

; Runs `programs` programs on at most `threads` threads; the kernel's arguments follow the %Launch.
; With `aside` set, the calling thread only waits: its stack is too small. A launch while another one
; runs stays on its own thread.
define void @pool_launch(ptr %launch) {
entry:
  %given = load %Launch, ptr %launch, align 8
  %kernel = extractvalue %Launch %given, 0
  %programs = extractvalue %Launch %given, 1
  %gx = extractvalue %Launch %given, 2
  %gy = extractvalue %Launch %given, 3
  %gz = extractvalue %Launch %given, 4
  %threads = extractvalue %Launch %given, 5
  %aside = extractvalue %Launch %given, 6
  %args = getelementptr %Launch, ptr %launch, i64 1
  %workers.wanted = sub i32 %threads, 1
  %solo = icmp slt i32 %workers.wanted, 1
  %here = icmp eq i32 %aside, 0
  %direct = and i1 %solo, %here
  br i1 %direct, label %alone, label %claim
alone:
  call void %kernel(ptr %args, i32 %gx, i32 %gy, i32 %gz, i64 0, i64 %programs)
  ret void
claim:
  %taken = cmpxchg ptr @busy, i32 0, i32 1 seq_cst seq_cst
  %mine = extractvalue { i32, i1 } %taken, 1
  br i1 %mine, label %begin, label %contended
contended:
  br i1 %here, label %alone, label %retry
retry:
  %y0 = call i32 @sched_yield()
  br label %claim
begin:
  store ptr %kernel, ptr @job
  %args.p = getelementptr %Job, ptr @job, i32 0, i32 1
  store ptr %args, ptr %args.p
  %gx.p = getelementptr %Job, ptr @job, i32 0, i32 2
  store i32 %gx, ptr %gx.p
  %gy.p = getelementptr %Job, ptr @job, i32 0, i32 3
  store i32 %gy, ptr %gy.p
  %gz.p = getelementptr %Job, ptr @job, i32 0, i32 4
  store i32 %gz, ptr %gz.p
  %count.p = getelementptr %Job, ptr @job, i32 0, i32 5
  store i64 %programs, ptr %count.p
  %wide = zext i32 %threads to i64
  %shares = mul i64 %wide, 32
  %share = udiv i64 %programs, %shares
  %small = icmp eq i64 %share, 0
  %batch = select i1 %small, i64 1, i64 %share
  %batch.p = getelementptr %Job, ptr @job, i32 0, i32 6
  store i64 %batch, ptr %batch.p
  store i64 0, ptr @next
  %most = select i1 %here, i32 %workers.wanted, i32 %threads
  store atomic i32 %most, ptr @limit monotonic, align 64
  %before = load i64, ptr @state
  %generation = lshr i64 %before, 17
  %following = add i64 %generation, 1
  %shifted = shl i64 %following, 17
  %opened = or i64 %shifted, 65536
  store atomic i64 %opened, ptr @state seq_cst, align 64
  %asleep = load atomic i32, ptr @sleeping seq_cst, align 64
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %share.work
wake:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %b = call i32 @pthread_cond_broadcast(ptr @wakeup)
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %share.work
share.work:
  br i1 %here, label %help, label %watch
help:
  call void @work()
  br label %close
watch:
  %handed = load atomic i64, ptr @next seq_cst, align 64
  %all = icmp sge i64 %handed, %programs
  br i1 %all, label %close, label %watch.more
watch.more:
  %y1 = call i32 @sched_yield()
  br label %watch
close:
  %old = atomicrmw and ptr @state, i64 -65537 seq_cst
  br label %drain
drain:
  %turns = phi i32 [ 0, %close ], [ %turns.next, %drain.pause ], [ 0, %drain.yield ]
  %left = load atomic i64, ptr @state seq_cst, align 64
  %running = and i64 %left, 65535
  %finished = icmp eq i64 %running, 0
  br i1 %finished, label %done, label %drain.wait
drain.wait:
  %turns.next = add i32 %turns, 1
  %long = icmp sgt i32 %turns.next, 2000
  br i1 %long, label %drain.yield, label %drain.pause
drain.pause:
  call void @pause()
  br label %drain
drain.yield:
  %y2 = call i32 @sched_yield()
  br label %drain
done:
  store atomic i32 0, ptr @busy seq_cst, align 64
  ret void
}
