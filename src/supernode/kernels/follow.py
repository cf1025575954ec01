"""Follows one program of a kernel through its TTIR: scalars are computed, tiles are counted."""

import math
from collections.abc import Callable, Mapping, Sequence

from supernode.kernels.scalars import Number, scalar
from supernode.kernels.ttir import VALUE, Function, Line, Region, element_bytes, last_type, shape_of

FLOPS = {
    **dict.fromkeys(("arith.addf", "arith.subf", "arith.mulf", "arith.divf", "arith.negf"), 1),
    **dict.fromkeys(("arith.maximumf", "arith.minimumf", "arith.maxnumf", "arith.minnumf"), 1),
    **dict.fromkeys(("arith.cmpf", "arith.remf", "math.absf", "math.floor", "math.ceil"), 1),
    **dict.fromkeys(("tt.clampf", "math.fma", "tt.precise_divf"), 2),
    **dict.fromkeys(("math.sqrt", "math.rsqrt", "tt.precise_sqrt"), 4),
    "tt.extern_elementwise": 8,
}
"""Of one element, as the op table counts them; other functions of `math` are 8."""
_FUNCTION_FLOPS = 8

_FREE_OPS = """
    splat addptr broadcast expand_dims make_range reshape trans join split cat bitcast int_to_ptr
    ptr_to_int advance make_tensor_ptr make_tensor_descriptor get_num_programs get_program_id
    fp_to_fp unsplat assert print gather histogram mulhiui
"""
_FREE = frozenset(_FREE_OPS.split())
"""Ops of `tt` that compute no floating-point numbers and move nothing to or from memory."""
_LOADS = ("tt.load", "tt.descriptor_load", "tt.descriptor_gather")
_STORES = ("tt.store", "tt.descriptor_store", "tt.descriptor_scatter")
_UPDATES = ("tt.atomic_rmw", "tt.atomic_cas", "tt.descriptor_reduce")
_CONTROL = ("scf.for", "scf.if", "scf.while", "tt.call")
_ENDS = frozenset({"scf.yield", "scf.condition", "tt.return", "tt.reduce.return", "tt.scan.return"})
MOST_TURNS = 100_000
"""Of a `while` loop; a longer one is taken to have no end."""


class Unknown(Exception):
    """It can't be counted; the message says why."""


class Follower:
    """Counts what programs of the function `main` do; `numbers` are its arguments' values."""

    def __init__(
        self, module: Mapping[str, Function], main: Function, numbers: Mapping[str, Number]
    ) -> None:
        self.flops = 0.0
        self.products = 0.0
        self.read: dict[str, float] = {}
        self.written: dict[str, float] = {}
        self._module = module
        self._main = main
        self._numbers = numbers
        self._weight = 1.0
        self._place: tuple[int, ...] = ()
        self._grid: tuple[int, ...] = ()
        self._values: dict[str, Number] = {}
        self._memory: dict[str, str] = {}
        self._handlers: dict[str, Callable[[Line], None]] = {
            "scf.for": self._for,
            "scf.if": self._if,
            "scf.while": self._while,
            "tt.call": self._call,
            "tt.reduce": self._combine,
            "tt.scan": self._combine,
            "tt.dot": self._dot,
            "tt.dot_scaled": self._dot,
            **dict.fromkeys(_LOADS, lambda op: self._move(op, self.read)),
            **dict.fromkeys(_STORES, lambda op: self._move(op, self.written)),
            **dict.fromkeys(_UPDATES, self._update),
        }

    def program(self, place: tuple[int, ...], grid: tuple[int, ...], weight: float) -> None:
        """Adds the program at `place`, which stands for `weight` of them."""
        self._place, self._grid, self._weight = place, grid, weight
        self._values = {name: value for name, value in self._numbers.items()}
        self._memory = {name: name for name, kind in self._main.args if "tt." in kind}
        self._region(self._main.body)

    def _region(self, region: Region) -> list[str]:
        """Runs from the first block; gives the operands of the op that ends it."""
        label = ""
        while True:
            for op in region.blocks[label]:
                if op.name in _ENDS:
                    return op.operands
                if op.name in ("cf.br", "cf.cond_br"):
                    label = self._jump(op, region)
                    break
                self._op(op)
            else:
                return []

    def _jump(self, op: Line, region: Region) -> str:
        targets = op.text.split("^")[1:]
        taken = 0
        if op.name == "cf.cond_br":
            condition = self._values.get(op.operands[0])
            if condition is None:
                raise Unknown("a branch depends on data")
            taken = 0 if condition else 1
        label, _, given = targets[taken].partition("(")
        label = label.strip(" ,")
        self._bind(region.args[label], VALUE.findall(given.split(" : ")[0]))
        return label

    def _bind(self, names: Sequence[str], sources: Sequence[str]) -> None:
        values = [self._values.get(source) for source in sources]
        memory = [self._memory.get(source) for source in sources]
        for name, value, where in zip(names, values, memory, strict=False):
            self._values[name] = value
            if where is not None:
                self._memory[name] = where

    def _op(self, op: Line) -> None:
        family, _, short = op.name.partition(".")
        if op.name in self._handlers:
            self._handlers[op.name](op)
        elif family == "arith":
            self._arith(op, short)
        elif family == "math" or op.name in FLOPS:
            self._count(FLOPS.get(op.name, _FUNCTION_FLOPS) * _elements(op))
        elif family == "tt" and short in _FREE:
            self._free(op, short)
        elif family != "ub":
            raise Unknown(f"nothing is known of {op.name}")

    def _count(self, flops: float) -> None:
        self.flops += flops * self._weight

    def _free(self, op: Line, short: str) -> None:
        axis = "xyz".find(op.text.strip()[:1])
        if short == "get_program_id":
            self._values[op.results[0]] = self._place[axis]
        elif short == "get_num_programs":
            self._values[op.results[0]] = self._grid[axis]
        where = next((self._memory[each] for each in op.operands if each in self._memory), None)
        if where is not None:
            for result in op.results:
                self._memory[result] = where

    def _arith(self, op: Line, short: str) -> None:
        if op.name in FLOPS:
            self._count(FLOPS[op.name] * _elements(op))
        if short == "select":
            self._free(op, short)
        operands = [self._values.get(each) for each in op.operands]
        self._values[op.results[0]] = scalar(op, short, operands)

    def _for(self, op: Line) -> None:
        bounds = [self._values.get(each) for each in op.operands[1:4]]
        if any(bound is None for bound in bounds):
            raise Unknown("how often a loop runs depends on data")
        start, stop, step = (int(bound or 0) for bound in bounds)
        turns = max(0, -(-(stop - start) // step))
        head = op.text.partition("iter_args(")[2].partition(")")[0]
        carried = [part.split(" = ") for part in head.split(", ") if part]
        names = [name for name, _ in carried]
        self._bind(names, [source for _, source in carried])
        region = op.regions[0]
        ended = names
        if turns and not _branches(region):
            outer = self._weight
            self._weight *= turns
            self._values |= dict.fromkeys((op.operands[0], *names))
            ended = self._region(region)
            self._weight = outer
            self._values |= dict.fromkeys(ended)
        else:
            for turn in range(turns):
                self._values[op.operands[0]] = start + turn * step
                ended = self._region(region)
                self._bind(names, ended)
        self._bind(op.results, names if turns == 0 else ended)

    def _if(self, op: Line) -> None:
        condition = self._values.get(op.operands[0])
        if condition is None:
            raise Unknown("a branch depends on data")
        chosen = op.regions[:1] if condition else op.regions[1:]
        if chosen:
            self._bind(op.results, self._region(chosen[0]))

    def _while(self, op: Line) -> None:
        head = op.text.partition("(")[2].partition(")")[0]
        carried = [part.split(" = ") for part in head.split(", ") if part]
        names = [name for name, _ in carried]
        self._bind(names, [source for _, source in carried])
        before, after = op.regions
        for _ in range(MOST_TURNS):
            goes_on, *passed = self._region(before)
            if self._values.get(goes_on) is None:
                raise Unknown("how often a loop runs depends on data")
            if not self._values[goes_on]:
                self._bind(op.results, passed)
                return
            self._bind(after.args[""], passed)
            self._bind(names, self._region(after))
        raise Unknown("a loop does not end")

    def _call(self, op: Line) -> None:
        callee = self._module[op.text.partition("@")[2].partition("(")[0].strip('"')]
        values, memory = self._values, self._memory
        self._values, self._memory = dict(values), dict(memory)
        self._bind([name for name, _ in callee.args], op.operands)
        ended = self._region(callee.body)
        given = [(self._values.get(each), self._memory.get(each)) for each in ended]
        self._values, self._memory = values, memory
        for result, (value, where) in zip(op.results, given, strict=True):
            self._values[result] = value
            if where is not None:
                self._memory[result] = where

    def _combine(self, op: Line) -> None:
        """A reduction or scan: its function once for each element."""
        outer = self._weight
        self._weight *= math.prod(shape_of(_first_type(op.types))[0])
        self._region(op.regions[0])
        self._weight = outer

    def _dot(self, op: Line) -> None:
        inner = shape_of(op.types.split(" * ")[0].rpartition(", ")[2])[0][-1]
        if op.name == "tt.dot_scaled" and "e2m1" in op.text.partition("=")[2].partition(",")[0]:
            inner *= 2  # two numbers a byte
        flops = 2.0 * inner * math.prod(shape_of(last_type(op.types))[0])
        self._count(flops)
        self.products += flops * self._weight

    def _update(self, op: Line) -> None:
        self._move(op, self.read)
        self._move(op, self.written)
        if "fadd" in op.text:
            self._count(_elements(op))

    def _move(self, op: Line, moved: dict[str, float]) -> None:
        where = next((self._memory[each] for each in op.operands if each in self._memory), None)
        if where is None:
            raise Unknown(f"{op.name} goes through a pointer that was itself loaded")
        dims, element = shape_of(last_type(op.types))
        size = math.prod(dims) * element_bytes(element)
        moved[where] = moved.get(where, 0.0) + size * self._weight


def _branches(region: Region) -> bool:
    """Whether what runs may differ from turn to turn."""
    lines = [line for block in region.blocks.values() for line in block]
    return any(line.name in _CONTROL or line.name.startswith("cf.") for line in lines)


def _first_type(types: str) -> str:
    return types.partition(" ->")[0].partition(", ")[0].strip("() ")


def _elements(op: Line) -> int:
    return math.prod(shape_of(last_type(op.types))[0])
