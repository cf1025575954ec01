"""Python source for a Program: one function a block, one statement an op."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supernode.errors import UnknownOp, near_matches
from supernode.ir import CALL, FETCH, RECEIVE, WAIT, Arg, Block, DType, HostType, Op, Value
from supernode.kernels.code import Names, identifier, value_name
from supernode.kernels.handles import find_overload, handle
from supernode.kernels.host import FUNCTIONS, INFIX
from supernode.kernels.local import LOCAL
from supernode.kernels.piece import piece_of
from supernode.kernels.random import RANDOM, prepare
from supernode.kernels.schema import argument_names, returns_count
from supernode.kernels.surroundings import Collectives, Grid, Letters, Places
from supernode.ops.random import Cuts, Shape, part_of, piece_arguments, time_parts
from supernode.plan.aliases import LETTERS
from supernode.plan.liveness import Rewrite, deaths, unused

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "all_to_all_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """Whom the code is written for: a rank of a grid, its ways out, the device of new tensors."""

    grid: Grid
    rank: int
    fabric: Collectives | None
    letters: Letters | None
    places: Places
    device: str


class Writer:
    """Collects the lines of a module, the names they refer to, and which op each line runs."""

    def __init__(self, chip: Chip, *, traced: bool) -> None:
        self.names = Names()
        self.lines: list[str] = []
        self.ops: dict[int, Op] = {}
        self._chip = chip
        self._traced = traced
        self._known: dict[tuple[Shape, Cuts], str] = {}
        self._coming: set[int] = set()

    def line(self, text: str, op: Op | None = None) -> None:
        """Appends a line; `op` is what fails when this line raises."""
        self.lines.append(text)
        if op is not None:
            self.ops[len(self.lines)] = op

    def block(self, block: Block, rewrite: Rewrite, *, is_main: bool) -> None:
        """Writes the function of one block."""
        stamp = ", stamp" if self._traced else ""
        self.line(f"def {function_name(block.name)}(args, out{stamp}):")
        if block.inputs:
            self.line(f"    {_targets(block.inputs)} = args")
        if not is_main:
            # The frame of the caller would otherwise keep every argument alive.
            self.line("    args.clear()")
            if dead := unused(block):
                self.line(f"    del {', '.join(map(value_name, dead))}")
        # Main's inputs belong to the caller: deleting their names frees nothing.
        kept = {value.id for value in block.inputs} if is_main else set[int]()
        for at, (op, dying) in enumerate(zip(block.ops, deaths(block), strict=True)):
            self._op(at, op, [value for value in dying if value.id not in kept], rewrite)
        for position in rewrite.copied:
            name = value_name(block.outputs[position])
            self.line(f"    {name} = out[{position}].copy_({name})")
        self.line(f"    return {_targets(block.outputs) if block.outputs else '()'}")
        self.line("")

    def _op(self, at: int, op: Op, dying: list[Value], rewrite: Rewrite) -> None:
        self._await(op)
        dead = f"    del {', '.join(map(value_name, dying))}" if dying else ""
        if op.name == CALL:
            self._call(op, dying, rewrite.calls.get(at))
            return
        text = self._expression(at, op, rewrite)
        if _skips(op):
            text = f"{self.names.bind('present', present)}({text})"
        if op.outputs:
            targets = _targets(op.outputs) if _unpacks(op) else value_name(op.outputs[0])
            text = f"{targets} = {text}"
        self.line(f"    {text}  # {op.site}", op)
        if dead:
            self.line(dead)
        if self._traced:
            self.line("    stamp()")

    def _call(self, op: Op, dying: list[Value], into: tuple[int | None, ...] | None) -> None:
        self.line(f"    args = [{', '.join(map(value_name, op.inputs))}]")
        passed = {value.id for value in op.inputs}
        given = [value for value in dying if value.id in passed]
        if given:
            self.line(f"    del {', '.join(map(value_name, given))}")
        out = "None"
        if into is not None:
            places = ["None" if place is None else f"out[{place}]" for place in into]
            out = f"({', '.join(places)},)"
        stamp = ", stamp" if self._traced else ""
        call = f"{function_name(op.block)}(args, {out}{stamp})"
        self.line(f"    {_targets(op.outputs)} = {call}" if op.outputs else f"    {call}")
        unused = [value for value in dying if value.id not in passed]
        if unused:
            self.line(f"    del {', '.join(map(value_name, unused))}")

    def _expression(self, at: int, op: Op, rewrite: Rewrite) -> str:
        namespace, _, name = op.name.partition(".")
        if namespace == "host":
            return self._host(op, name)
        if op.name in LETTERS:
            return self._letter(op)
        if namespace == "fabric":
            return self._fabric(op, name)
        if namespace == "place":
            return self._place(op, rewrite.into.get(at))
        if namespace == "local":
            return self._local(op, name)
        if namespace == "random":
            return self._random(op, name)
        if at in rewrite.inplace:
            method = f"{value_name(op.inputs[0])}.{name.split('.')[0]}_"
            return self.names.call(method, op.args[1:], op.kwargs)
        found = handle(op.name)
        text = self.names.call(self.names.bind(found.symbol, found.call), op.args, op.kwargs)
        if at in rewrite.into:
            return f"{text[:-1]}, out=out[{rewrite.into[at]}])"
        return self._on_device(op, text)

    def _await(self, op: Op) -> None:
        """Waits for what was fetched, at its first use."""
        for value in op.inputs:
            if value.id in self._coming:
                self._coming.remove(value.id)
                wait = self.names.bind("wait", self._chip.places.wait)
                self.line(f"    {wait}({value.id})", op)

    def _place(self, op: Op, out: int | None) -> str:
        value = op.inputs[0]
        if op.name == WAIT:
            (_, stored) = op.inputs
            return f"{self.names.bind('wait', self._chip.places.wait)}({stored.id})"
        key = op.outputs[0].id
        if op.name == FETCH:
            self._coming.add(key)
            return (
                f"{self.names.bind('fetch', self._chip.places.fetch)}({value_name(value)}, {key})"
            )
        store = self.names.bind("store", self._chip.places.store)
        into = "" if out is None else f", out[{out}]"
        return f"{store}({value_name(value)}, {key}{into})"

    def _on_device(self, op: Op, text: str) -> str:
        """New tensors of an op without tensor operands are made on the chip."""
        if self._chip.device == "cpu" or op.inputs or op.kwarg("device") is not None:
            return text
        if "device" not in argument_names(find_overload(op.name)):
            return text
        return f"{text[:-1]}{', ' if op.args or op.kwargs else ''}device={self._chip.device!r})"

    def _host(self, op: Op, name: str) -> str:
        texts = [self.names.arg(arg) for arg in op.args]
        if name in INFIX:
            # -2.0 ** x would be read as -(2.0 ** x).
            operands = [f"({text})" if text.startswith("-") else text for text in texts]
            return f" {INFIX[name]} ".join(operands)
        if name not in FUNCTIONS:
            known = [*INFIX, *FUNCTIONS]
            raise UnknownOp(f"no host op {op.name!r}", fix=near_matches(name, known))
        symbol = self.names.bind(f"host_{name}", FUNCTIONS[name])
        return f"{symbol}({', '.join(texts)})"

    def _fabric(self, op: Op, name: str) -> str:
        if name not in COLLECTIVES:
            fix = near_matches(name, COLLECTIVES)
            raise UnknownOp(f"the fabric has no collective {op.name!r}", fix=fix)
        values, axis, *rest = op.args
        assert isinstance(axis, str)
        group = self._chip.grid.group(self._chip.rank, axis)
        if len(group) == 1:
            return self.names.arg(values)
        fabric = self._chip.fabric
        assert fabric is not None, f"{op.name} over {axis} needs a fabric"
        if name == "all_to_all":
            return self._all_to_all(fabric, values, *rest, group)
        if name == "all_to_all_rows":
            return self._all_to_all_rows(fabric, values, *rest, group)
        symbol = self.names.bind(f"fabric_{name}", getattr(fabric, f"{name}_many"))
        # A fabric takes (values, dims where there are any, group, kind where there is one).
        dims, kind = (rest, []) if name == "all_gather" else (rest[:-1], rest[-1:])
        text = self.names.call(symbol, (values, *dims, group, *kind), ())
        return self._with_results(text, op) if name == "all_reduce" else text

    def _letter(self, op: Op) -> str:
        values, axis, place, key, *ends = op.args
        assert isinstance(values, tuple)
        assert isinstance(axis, str)
        assert isinstance(place, int)
        letters = self._chip.letters
        assert letters is not None, f"{op.name} over {axis} needs a mailbox"
        rank = place if ends else self._chip.grid.group(self._chip.rank, axis)[place]
        if op.name == RECEIVE:
            text = f"{self.names.bind('receive', letters.receive)}({rank}, {key})"
            return f"{text}.item()" if isinstance(op.outputs[0].type, HostType) else text
        (value,) = op.inputs
        text = value_name(value)
        if isinstance(value.type, HostType):
            tensor = self.names.bind("torch_tensor", torch.tensor)
            dtype = self.names.arg(DType(value.type.dtype))
            text = f"{tensor}({text}, dtype={dtype}, device={self._chip.device!r})"
        return f"{self.names.bind('send', letters.send)}({text}, {rank}, {key})"

    def _with_results(self, text: str, op: Op) -> str:
        """New tensors for the sums: without, a fabric reduces what lies in its arena in place."""
        empty = self.names.bind("torch_empty_like", torch.empty_like)
        dense = self.names.bind("contiguous_format", torch.contiguous_format)
        news = [f"{empty}({value_name(v)}, memory_format={dense})" for v in op.inputs]
        return f"{text[:-1]}, ({', '.join(news)},))"

    def _all_to_all(self, fabric: Collectives, *args: Arg) -> str:
        values, split_dims, concat_dims, group = args
        assert isinstance(values, tuple)
        assert isinstance(split_dims, tuple)
        assert isinstance(concat_dims, tuple)
        symbol = self.names.bind("fabric_all_to_all", fabric.all_to_all)
        each = zip(values, split_dims, concat_dims, strict=True)
        calls = [self.names.call(symbol, (*args, group), ()) for args in each]
        return f"({', '.join(calls)},)"

    def _all_to_all_rows(self, fabric: Collectives, *args: Arg) -> str:
        values, peers, back, group = args
        assert isinstance(values, tuple)
        assert isinstance(peers, Value)
        symbol = self.names.bind("fabric_all_to_all_rows", fabric.all_to_all_rows)
        sizes = f"{value_name(peers)}.tolist()"
        sent, received = (f"{sizes}[{int(bool(i) != bool(back))}]" for i in range(2))
        calls = [
            f"{symbol}({self.names.arg(value)}, {sent}, {received}, {self.names.arg(group)})"
            for value in values
        ]
        return f"({', '.join(calls)},)"

    def _local(self, op: Op, name: str) -> str:
        if name not in LOCAL:
            fix = near_matches(name, LOCAL)
            raise UnknownOp(f"no local op {op.name!r}", fix=fix)
        symbol = self.names.bind(f"local_{identifier(name)}", LOCAL[name])
        coordinate = self._chip.grid.coordinates(self._chip.rank)
        here = f"coordinate={self.names.bind('here', coordinate)}"
        mesh = f"mesh={self.names.bind('mesh', self._chip.grid)}"
        return f"{self.names.call(symbol, op.args, op.kwargs)[:-1]}, {here}, {mesh})"

    def _random(self, op: Op, name: str) -> str:
        if name not in RANDOM:
            fix = near_matches(name, RANDOM)
            raise UnknownOp(f"no random op {op.name!r}", fix=fix)
        prepare(self._chip.device)
        symbol = self.names.bind(f"random_{name}", RANDOM[name])
        items = [self.names.arg(arg) for arg in op.args]
        items[3] = f"{self._pieces(op)}[0]"
        if time_parts(op) > 1:
            items[3] = f"{self._pieces(op)}[{self.names.bind('part_of', part_of)}({items[2]})]"
        items += [f"{key}={self.names.arg(arg)}" for key, arg in op.kwargs if key != "cuts"]
        return f"{symbol}({', '.join(items)})"

    def _pieces(self, op: Op) -> str:
        """The name of what this chip has of a tensor, by part of time; equal ones share it."""
        shape, cuts = piece_arguments(op)
        if (shape, cuts) not in self._known:
            chip = self._chip
            found = tuple(
                piece_of(shape, cuts, chip.grid, chip.rank, part, chip.device)
                for part in range(time_parts(op))
            )
            self._known[shape, cuts] = self.names.bind(f"pieces_{len(self._known)}", found)
        return self._known[shape, cuts]


def function_name(block: str) -> str:
    """The name of the function that runs a block."""
    return "main" if block == "main" else f"block_{identifier(block)}"


def _targets(values: tuple[Value, ...]) -> str:
    names = ", ".join(map(value_name, values))
    return f"({names},)" if len(values) == 1 else names


def present(results: Sequence[Tensor | None]) -> list[Tensor]:
    """The results of an op that was asked for some of them only (`output_mask`)."""
    return [result for result in results if result is not None]


def _unpacks(op: Op) -> bool:
    """Whether the op gives a sequence, of one or more."""
    namespace = op.name.partition(".")[0]
    if op.name in LETTERS:
        return False
    if len(op.outputs) != 1 or namespace == "fabric":
        return True
    return (
        namespace not in ("host", "local", "random", "place")
        and returns_count(find_overload(op.name)) != 1
    )


def _skips(op: Op) -> bool:
    """Whether the op gives None for some results, which a Program does not list."""
    if op.name.partition(".")[0] in ("host", "local", "random", "fabric", "place"):
        return False
    count = returns_count(find_overload(op.name))
    return count is not None and count != len(op.outputs)
