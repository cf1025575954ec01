"""Computes a lazy tile value for one chunk of lanes of a nest."""

from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import cause, placed
from ..passes.steps import Buffer, Nest
from ..tile.ops import Op, Value
from ..tile.types import I1, I8, I32, I64, Elem
from . import memory
from .context import Context
from .elementwise import Apply, apply
from .lanes import Lanes, as_vector, factor_of, moved, sequence, turning_point
from .writer import literal, vector

Index = tuple[tuple[str, bool], ...]
"""Per dim: the i32 index, and whether the lanes run along it (lane i is then at index + i)."""
FIRST = ("0", False)
TRUE = Lanes("true", I1, 0)


@dataclass(eq=False, slots=True)
class Chunk:
    """`count` lanes of a nest at a time; `cache` holds what was computed at the current index, and
    `certain` the comparisons that are true there, with their index wherever the lanes begin."""

    context: Context
    nest: Nest
    count: int
    index_factor: dict[str, int] = field(default_factory=dict[str, int])
    cache: dict[tuple[Value, Index], Lanes] = field(
        default_factory=dict[tuple[Value, Index], Lanes]
    )
    certain: dict[Value, Index] = field(default_factory=dict[Value, Index])

    def lanes(self, value: Value, index: Index) -> Lanes:
        """The lanes of `value` at `index`."""
        if not value.type.is_tile:
            return self.context.lanes_of(value)
        key = (value, index)
        known = self.cache.get(key)
        if known is None:
            known = self.cache[key] = self._compute(value, index)
        return known

    def vector(self, value: Value, index: Index) -> str:
        """The same as an LLVM vector."""
        return as_vector(self.context.w, self.lanes(value, index), self.count)

    def _compute(self, value: Value, index: Index) -> Lanes:
        buffer = self.context.schedule.buffers.get(value)
        if buffer is not None and value not in self.nest.values:
            return self.read(buffer, index, value.type.pointee)
        op = value.op
        assert op is not None, f"{value} has no buffer"
        if self._is_certain(value, index):
            return TRUE
        try:
            return self._lazy(op, value, index)
        except Exception as error:
            raise placed(error, f"{op.name}, {op.location}") from cause(error)

    def _is_certain(self, value: Value, index: Index) -> bool:
        place = self.certain.get(value)
        if place is None:
            return False
        pairs = zip(place, index, strict=True)
        return all(a == b or (a[1] and b[1]) for a, b in pairs)

    def _lazy(self, op: Op, value: Value, index: Index) -> Lanes:
        if op.name in MOVED_VIEWS:
            return self.lanes(op.operands[0], behind(op, index, FIRST))
        view = _VIEWS.get(op.name)
        if view is not None:
            return view(self, op, index)
        if op.name == "load":
            return self._load(op, index)
        return self._elementwise(op, value, index)

    def _load(self, op: Op, index: Index) -> Lanes:
        pointer, mask, other = memory.load_operands(op)
        given = [None if one is None else self.lanes(one, index) for one in (mask, other)]
        elem, at, size = op.result.type.elem, self.lanes(pointer, index), lane_size(pointer, index)
        memory.fetch_ahead(self.context, pointer, at, size, elem, self.count, write=False)
        return memory.load(self.context, at, given[0], given[1], elem, self.count, op)

    def _elementwise(self, op: Op, value: Value, index: Index) -> Lanes:
        w = self.context.w
        args = [self.lanes(operand, index) for operand in op.operands]
        elem, pointee = value.type.elem, value.type.pointee
        if not any(arg.is_vector for arg in args):
            if op.name == "addptr":
                assert pointee is not None
                return moved(w, args[0], args[1], pointee)
            if elem.is_int and elem.bits > 1:
                result = sequence(w, op.name, args, elem, self.count)
                if result is not None:
                    return result
            if op.name == "bitcast" and elem.is_pointer and args[0].is_uniform:
                return Lanes(args[0].value, elem, 0, 1, False, pointee)
            if op.name == "cmp" and args[0].elem.is_int and self.count > 1:
                turn = turning_point(w, op.attrs["predicate"], args[0], args[1])
                if turn is not None:
                    return Lanes(self._until(*turn), elem, None)
        if op.name == "and" and TRUE in args:
            return args[1 - args.index(TRUE)]
        if op.name == "div" and args[1].is_uniform and not args[0].is_uniform:
            return Lanes(self._divide(op, args), elem, None)
        uniform = all(arg.is_uniform for arg in args)
        count = 0 if uniform else self.count
        names = [arg.value if uniform else as_vector(w, arg, count) for arg in args]
        kinds = [arg.elem for arg in args]
        contract = self.context.target.contract
        written = apply(w, Apply(op.name, op.attrs, names, kinds, elem, count, pointee, contract))
        return Lanes(written, elem, 0 if uniform else None, pointee=pointee)

    def _until(self, turn: str, before: bool) -> str:
        """Whether lanes lie before lane number `turn`, or from it on: numbers of lanes are small,
        and a register holds many."""
        w, count = self.context.w, self.count
        small = I8 if "avx512bw" in w.features else I32
        at = w.intrinsic("smax", I64, 0, w.intrinsic("smin", I64, 0, turn, str(count)), "0")
        limit = w.splat(small, w.convert("trunc", at, I64, small, 0), count)
        how = "ult" if before else "uge"
        return w.let(f"icmp {how} {vector(small, count)} {w.counting(small, 1, count)}, {limit}")

    def _divide(self, op: Op, args: list[Lanes]) -> str:
        """Division of all lanes by one number. Triton's `/` of float32 may be 2 ulp off, so where
        the reciprocal is a normal number, multiplying by it does."""
        w, elem = self.context.w, op.result.type.elem
        numerator = as_vector(w, args[0], self.count)
        kinds, divisor = [elem, elem], args[1].value

        def apply_to(name: str, other: str) -> str:
            given = [numerator, w.splat(elem, other, self.count)]
            return apply(w, Apply(name, op.attrs, given, kinds, elem, self.count))

        if elem.name != "f32" or op.attrs.get("precise"):
            return apply_to("div", divisor)
        inverse = w.let(f"fdiv float {literal(1.0, elem)}, {divisor}")
        normal = w.intrinsic("fabs", elem, 0, inverse)
        low, high = literal(2.0**-125, elem), literal(2.0**125, elem)
        above, below = (
            w.let(f"fcmp oge float {normal}, {low}"),
            w.let(f"fcmp ole float {normal}, {high}"),
        )
        return w.choose(
            w.let(f"and i1 {above}, {below}"),
            lambda: apply_to("mul", inverse),
            lambda: apply_to("div", divisor),
            vector(elem, self.count),
        )

    def read(self, buffer: Buffer, index: Index, pointee: Elem | None = None) -> Lanes:
        """Lanes of a stored tile."""
        w, elem = self.context.w, buffer.elem
        address = self.context.address(buffer, [name for name, _ in index])
        stride = _lane_stride(buffer, index)
        if stride == 0:
            return Lanes(w.load(elem, address), elem, 0, pointee=pointee)
        if stride == 1:
            return Lanes(w.load(elem, address, self.count), elem, None, pointee=pointee)
        gathered = memory.strided_load(w, address, stride, elem, self.count)
        return Lanes(gathered, elem, None, pointee=pointee)

    def write(self, buffer: Buffer, index: Index, lanes: Lanes) -> None:
        """Stores lanes to a buffer."""
        w, elem = self.context.w, buffer.elem
        address = self.context.address(buffer, [name for name, _ in index])
        stride = _lane_stride(buffer, index)
        if not any(along for _, along in index):
            w.store(elem, lanes.value, address)
            return
        value = as_vector(w, lanes, self.count)
        if stride == 1 or self.count == 1:
            w.store(elem, value, address, self.count)
        else:
            memory.strided_store(w, value, address, stride, elem, self.count)


def lane_size(value: Value, index: Index) -> int:
    """Elements of a tile along the lanes; 0 if they are all at one place."""
    dims = zip(value.type.dims, index, strict=True)
    return next((size for size, (_, along) in dims if along), 0)


def _lane_stride(buffer: Buffer, index: Index) -> int:
    for (_, along), stride in zip(index, buffer.strides, strict=True):
        if along:
            return stride
    return 0


def _splat(chunk: Chunk, op: Op, index: Index) -> Lanes:
    return chunk.context.lanes_of(op.operands[0])


def _const(chunk: Chunk, op: Op, index: Index) -> Lanes:
    elem, value = op.result.type.elem, op.attrs["value"]
    if elem.is_int and elem.bits > 1:
        number = int(value)
        return Lanes(str(number), elem, 0, factor_of(number), number >= 0)
    return Lanes(literal(value, elem), elem, 0)


def _poison(chunk: Chunk, op: Op, index: Index) -> Lanes:
    elem = op.result.type.elem
    return Lanes(literal(0, elem), elem, 0, pointee=op.result.type.pointee)


def _range(chunk: Chunk, op: Op, index: Index) -> Lanes:
    (name, along), start = index[0], int(op.attrs["start"])
    factor = chunk.index_factor.get(name, 1)
    if name == "0":
        value, factor = str(start), factor_of(start)
    elif start:
        value = chunk.context.w.let(f"add i32 {name}, {start}")
        factor = min(factor, factor_of(start))
    else:
        value = name
    return Lanes(value, I32, 1 if along else 0, factor, start >= 0)


MOVED_VIEWS = ("expand", "broadcast", "trans")
_At = TypeVar("_At")


def behind(op: Op, index: tuple[_At, ...], first: _At) -> tuple[_At, ...]:
    """Where one of `MOVED_VIEWS` reads its operand; at `first` along dims of one element."""
    if op.name == "expand":
        axis = int(op.attrs["axis"])
        return index[:axis] + index[axis + 1 :]
    if op.name == "trans":
        order: list[int] = op.attrs["order"]
        return tuple(index[order.index(dim)] for dim in range(len(index)))
    sizes = zip(op.operands[0].type.dims, op.result.type.dims, index, strict=True)
    return tuple(first if size == 1 and full != 1 else at for size, full, at in sizes)


_VIEWS = {
    "splat": _splat,
    "const": _const,
    "poison": _poison,
    "range": _range,
}
