"""Loads and stores of the caller's memory, by chunks of lanes or one element at a time."""

from ..passes.addresses import changes
from ..tile.ops import Op, Value
from ..tile.types import I8, I64, PTR, Elem
from . import sanitizer
from .context import Context
from .lanes import Lanes, as_vector
from .writer import Writer, literal, mangle, memory_vector, vector

_BYTES_AHEAD = 2048


def load_operands(op: Op) -> tuple[Value, Value | None, Value | None]:
    """Pointer, mask and replacement value of a load."""
    segments: list[int] = op.attrs.get("segments") or [1] * len(op.operands)
    rest = iter(op.operands)
    parts = [next(rest) if present else None for present in [*segments, 0, 0][:3]]
    assert parts[0] is not None
    return parts[0], parts[1], parts[2]


def load(
    c: Context,
    pointer: Lanes,
    mask: Lanes | None,
    other: Lanes | None,
    elem: Elem,
    count: int,
    op: Op,
) -> Lanes:
    """One chunk of a tile load."""
    if mask is not None and mask.value == "true":
        mask = None
    sanitizer.check(c, pointer, mask, elem, count, op, "load")
    pointee = op.result.type.pointee
    if all(part is None or part.is_uniform for part in (pointer, mask, other)):
        one = load_one(c, pointer.value, mask, other, elem, bool(op.attrs.get("isVolatile")))
        return Lanes(one, elem, 0, pointee=pointee)
    w = c.w
    fallback = "zeroinitializer"
    if other is not None:
        fallback = w.to_memory(elem, as_vector(w, other, count), count)
    flags = None if mask is None else as_vector(w, mask, count)
    if pointer.step == 1:
        loaded = _load_consecutive(w, pointer.value, flags, fallback, elem, count)
    elif pointer.is_uniform:
        loaded = _load_same(w, pointer.value, flags, fallback, elem, count)
    elif pointer.is_vector and count > 1:
        loaded = _load_perhaps_consecutive(w, pointer.value, flags, fallback, elem, count)
    else:
        loaded = gather(w, as_vector(w, pointer, count), flags, fallback, elem, count)
    return Lanes(w.from_memory(elem, loaded, count), elem, None, pointee=pointee)


def fetch_ahead(
    c: Context, pointers: Value, at: Lanes, size: int, elem: Elem, count: int, *, write: bool
) -> None:
    """Asks for what a later turn loads or stores, along `size` elements that lie side by side: a
    CPU foresees a stream, but not far, and not past the end of a page. What every program reads at
    the same place is near already."""
    if at.step == 1 and size * elem.size_bytes > _BYTES_AHEAD and changes(pointers, c.arguments):
        place = c.w.let(f"getelementptr i8, ptr {at.value}, i64 {_BYTES_AHEAD}")
        c.w.fetch(place, count * elem.size_bytes, write=write)


def _stored(elem: Elem) -> Elem:
    return I8 if elem.bits == 1 else elem


def _load_consecutive(
    w: Writer, address: str, flags: str | None, fallback: str, elem: Elem, count: int
) -> str:
    kind, size = memory_vector(elem, count), elem.size_bytes
    if flags is None:
        return w.let(f"load {kind}, ptr {address}, align {size}")
    name = f"llvm.masked.load.{mangle(_stored(elem), count)}.p0"
    w.declare(name, f"declare {kind} @{name}(ptr, i32, <{count} x i1>, {kind})")
    return w.let(
        f"call {kind} @{name}(ptr {address}, i32 {size}, <{count} x i1> {flags}, {kind} {fallback})"
    )


def _load_same(
    w: Writer, address: str, flags: str | None, fallback: str, elem: Elem, count: int
) -> str:
    """One address for all lanes: read it once, if any lane wants it."""
    kind, stored = memory_vector(elem, count), _stored(elem)
    slot = w.alloca(elem.memory)
    w.store(stored, literal(0, stored), slot)
    wanted = None
    if flags is not None:
        bits = w.let(f"bitcast <{count} x i1> {flags} to i{count}")
        wanted = w.let(f"icmp ne i{count} {bits}, 0")
    with w.when(wanted):
        w.store(stored, w.load(stored, address), slot)
    same = w.splat(stored, w.load(stored, slot), count)
    if flags is None:
        return same
    return w.let(f"select <{count} x i1> {flags}, {kind} {same}, {kind} {fallback}")


def _load_perhaps_consecutive(
    w: Writer, pointers: str, flags: str | None, fallback: str, elem: Elem, count: int
) -> str:
    """Addresses that were computed lane by lane often turn out to be consecutive (an index taken
    modulo a size, rows looked up in a table): then one vector load does."""
    kind = memory_vector(elem, count)
    addresses = w.let(f"ptrtoint <{count} x ptr> {pointers} to <{count} x i64>")
    first = w.lane(I64, addresses, count, 0)
    expected = w.let(
        f"add <{count} x i64> {w.splat(I64, first, count)},"
        f" {w.counting(I64, elem.size_bytes, count)}"
    )
    equal = w.let(f"icmp eq <{count} x i64> {addresses}, {expected}")
    bits = w.let(f"bitcast <{count} x i1> {equal} to i{count}")
    consecutive = w.let(f"icmp eq i{count} {bits}, -1")
    stem = w.name("run")
    w.branch(consecutive, f"{stem}.yes", f"{stem}.no")
    w.label(f"{stem}.yes")
    start = w.lane(PTR, pointers, count, 0)
    run = _load_consecutive(w, start, flags, fallback, elem, count)
    w.jump(f"{stem}.end")
    w.label(f"{stem}.no")
    apart = gather(w, pointers, flags, fallback, elem, count)
    w.jump(f"{stem}.end")
    w.label(f"{stem}.end")
    return w.let(f"phi {kind} [ {run}, %{stem}.yes ], [ {apart}, %{stem}.no ]")


def gather(
    w: Writer, pointers: str, flags: str | None, fallback: str, elem: Elem, count: int
) -> str:
    """Loads from unrelated addresses."""
    kind, stored = memory_vector(elem, count), _stored(elem)
    name = f"llvm.masked.gather.{mangle(stored, count)}.v{count}p0"
    w.declare(name, f"declare {kind} @{name}(<{count} x ptr>, i32, <{count} x i1>, {kind})")
    enabled = flags or "splat (i1 true)"
    return w.let(
        f"call {kind} @{name}(<{count} x ptr> {pointers}, i32 {elem.size_bytes},"
        f" <{count} x i1> {enabled}, {kind} {fallback if flags else 'poison'})"
    )


def store(
    c: Context, pointer: Lanes, value: Lanes, mask: Lanes | None, elem: Elem, count: int, op: Op
) -> None:
    """One chunk of a tile store. Of lanes with one address, the last one wins."""
    if mask is not None and mask.value == "true":
        mask = None
    sanitizer.check(c, pointer, mask, elem, count, op, "store")
    w = c.w
    kind, size = memory_vector(elem, count), elem.size_bytes
    stored = w.to_memory(elem, as_vector(w, value, count), count)
    flags = None if mask is None else as_vector(w, mask, count)
    if pointer.step == 1 and flags is None:
        w.do(f"store {kind} {stored}, ptr {pointer.value}, align {size}")
    elif pointer.step == 1:
        name = f"llvm.masked.store.{mangle(_stored(elem), count)}.p0"
        w.declare(name, f"declare void @{name}({kind}, ptr, i32, <{count} x i1>)")
        w.do(
            f"call void @{name}({kind} {stored}, ptr {pointer.value}, i32 {size},"
            f" <{count} x i1> {flags})"
        )
    else:
        scatter(w, as_vector(w, pointer, count), stored, flags, elem, count)


def scatter(
    w: Writer, pointers: str, stored: str, flags: str | None, elem: Elem, count: int
) -> None:
    """Stores to unrelated addresses, lowest lane first."""
    kind = memory_vector(elem, count)
    name = f"llvm.masked.scatter.{mangle(_stored(elem), count)}.v{count}p0"
    w.declare(name, f"declare void @{name}({kind}, <{count} x ptr>, i32, <{count} x i1>)")
    w.do(
        f"call void @{name}({kind} {stored}, <{count} x ptr> {pointers}, i32 {elem.size_bytes},"
        f" <{count} x i1> {flags or 'splat (i1 true)'})"
    )


def _strided_pointers(w: Writer, address: str, stride: int, elem: Elem, count: int) -> str:
    offsets = w.counting(I64, stride, count)
    return w.let(f"getelementptr {elem.memory}, ptr {address}, <{count} x i64> {offsets}")


def strided_load(w: Writer, address: str, stride: int, elem: Elem, count: int) -> str:
    """Every `stride`-th element of a buffer."""
    pointers = _strided_pointers(w, address, stride, elem, count)
    loaded = gather(w, pointers, None, "poison", elem, count)
    return w.from_memory(elem, loaded, count)


def strided_store(w: Writer, value: str, address: str, stride: int, elem: Elem, count: int) -> None:
    """Writes every `stride`-th element of a buffer."""
    pointers = _strided_pointers(w, address, stride, elem, count)
    scatter(w, pointers, w.to_memory(elem, value, count), None, elem, count)


def load_one(
    c: Context,
    address: str,
    mask: Lanes | None,
    other: Lanes | None,
    elem: Elem,
    volatile: bool = False,
) -> str:
    """A scalar load; `other`, or zero, where the mask is false."""
    w = c.w

    def read() -> str:
        how = "load volatile" if volatile else "load"
        loaded = w.let(f"{how} {elem.memory}, ptr {address}, align {elem.size_bytes}")
        return w.from_memory(elem, loaded, 0)

    if mask is None:
        return read()
    stem, before = w.name("load"), w.label_now
    w.branch(mask.value, stem, f"{stem}.end")
    w.label(stem)
    loaded = read()
    w.jump(f"{stem}.end")
    w.label(f"{stem}.end")
    fallback = literal(0, elem) if other is None else other.value
    return w.let(f"phi {vector(elem, 0)} [ {loaded}, %{stem} ], [ {fallback}, %{before} ]")


def store_one(c: Context, address: str, value: str, mask: Lanes | None, elem: Elem) -> None:
    """A scalar store."""
    with c.w.when(None if mask is None else mask.value):
        c.w.store(elem, value, address)


def check_one(c: Context, pointer: Lanes, mask: Lanes | None, op: Op) -> None:
    """The sanitizer's check of a scalar store."""
    sanitizer.check(c, pointer, mask, op.operands[1].type.elem, 1, op, "store")
