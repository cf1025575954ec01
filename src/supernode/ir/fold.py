"""Folding: stretches of ops that repeat back to back become one block and one call each.

A transformer's layers show up as tandem repeats three times: forward, backward and in the
optimizer. They are found by structure alone (op names, constants, types, then the wiring), so no
module needs to be known or named. Folding changes no op and no order.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from supernode.ir.program import CALL, Block, Op, Program, Site
from supernode.ir.runs import Run, find_run
from supernode.ir.types import Arg, Value
from supernode.ir.verify import verify


def fold(program: Program) -> Program:
    """`program` with every worthwhile repeat of `main` stored once.

    Expanding the calls gives back the ops of `program` in their order, so results are equal bit
    for bit.
    """
    blocks = list(program.blocks)
    ops = list(program.main.ops)
    kept = frozenset(value.id for value in program.main.outputs)
    refused: set[tuple[int, int]] = set()
    while run := find_run([_token(op) for op in ops], refused):
        wiring = _wire(ops, run)
        if wiring is None:
            refused.add((run.start, run.period))
            continue
        # The positions of what was refused before have moved.
        refused = set()
        name = _name(ops[wiring.start : wiring.start + wiring.period], blocks)
        block, calls = _outline(ops, wiring, kept, name)
        blocks.append(block)
        ops[wiring.start : wiring.start + wiring.period * len(calls)] = calls
    main = Block(
        name="main", inputs=program.main.inputs, ops=tuple(ops), outputs=program.main.outputs
    )
    return verify(
        Program(
            name=program.name,
            main=main,
            blocks=tuple(blocks),
            inputs=program.inputs,
            outputs=program.outputs,
            updates=program.updates,
        )
    )


def _name(stretch: list[Op], blocks: list[Block]) -> str:
    """`layers_forward` for what the modules `layers.0`, `layers.1`, … do; unique."""
    found = next(filter(None, (_INDEX.search(op.site.module) for op in stretch)), None)
    root = found.string[: found.start()] if found else ""
    words = [*re.split(r"\W+", root), stretch[0].site.phase]
    name = "_".join(filter(None, words))
    taken = {block.name for block in blocks}
    return next(n for n in (name, *(f"{name}{i}" for i in range(2, 999))) if n not in taken)


def _token(op: Op) -> object:
    """What must agree between repetitions, wiring aside; calls never repeat."""
    if op.name == CALL:
        return id(op)
    kwargs = tuple((name, _shape_of(arg)) for name, arg in op.kwargs)
    outputs = tuple(value.type for value in op.outputs)
    return (op.name, _shape_of(op.args), kwargs, outputs, op.site.phase, bool(op.site.region))


def _shape_of(arg: Arg) -> object:
    if isinstance(arg, Value):
        return arg.type
    if isinstance(arg, tuple):
        return tuple(_shape_of(item) for item in arg)
    # 1, 1.0 and True are equal to Python and different to an op.
    return (type(arg), repr(arg))


Source = tuple[int, int] | None
"""Which op and output of the same repetition an operand is, or None from outside."""


@dataclass(frozen=True, slots=True)
class _Wiring:
    start: int
    period: int
    pattern: tuple[tuple[Source, ...], ...]
    outside: tuple[tuple[Value, ...], ...]


def _wire(ops: list[Op], run: Run) -> _Wiring | None:
    """The longest stretch of repetitions that are wired alike, or None."""
    wired = [
        _sources(ops[at : at + run.period])
        for at in range(run.start, run.start + run.period * run.count, run.period)
    ]
    best, first = (0, 0), 0
    for i in range(1, len(wired) + 1):
        if i == len(wired) or wired[i][0] != wired[first][0]:
            best = max(best, (i - first, -first))
            first = i
    count, first = best[0], -best[1]
    if count < 2:
        return None
    outside = tuple(values for _, values in wired[first : first + count])
    return _Wiring(run.start + first * run.period, run.period, wired[first][0], outside)


def _sources(ops: list[Op]) -> tuple[tuple[tuple[Source, ...], ...], tuple[Value, ...]]:
    made = {value.id: (i, j) for i, op in enumerate(ops) for j, value in enumerate(op.outputs)}
    pattern = tuple(tuple(made.get(value.id) for value in op.inputs) for op in ops)
    outside = tuple(value for op in ops for value in op.inputs if value.id not in made)
    return pattern, outside


def _outline(
    ops: list[Op], wiring: _Wiring, kept: frozenset[int], name: str
) -> tuple[Block, list[Op]]:
    """The block of a run and the calls that replace it."""
    period, count = wiring.period, len(wiring.outside)
    stretches = [ops[wiring.start + i * period :][:period] for i in range(count)]
    slots = _slots(wiring.outside)
    results = _results(ops, stretches, kept)
    block, block_outputs = _block(name, stretches, slots, results)
    calls = [
        Op(
            name=CALL,
            block=name,
            args=tuple(values[uses[0]] for uses in slots),
            outputs=tuple(stretch[i].outputs[j] for i, j in block_outputs),
            site=_common_site([op.site for op in stretch]),
        )
        for stretch, values in zip(stretches, wiring.outside, strict=True)
    ]
    return block, calls


def _slots(outside: tuple[tuple[Value, ...], ...]) -> list[list[int]]:
    """Uses of outside values grouped into block inputs: those that agree in every repetition."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for use in range(len(outside[0])):
        groups.setdefault(tuple(values[use].id for values in outside), []).append(use)
    return list(groups.values())


def _results(
    ops: list[Op], stretches: list[list[Op]], kept: frozenset[int]
) -> list[tuple[int, int]]:
    """The (op, output) places whose value some repetition hands out."""
    uses = Counter(value.id for op in ops for value in op.inputs)
    found: set[tuple[int, int]] = set()
    for stretch in stretches:
        inside = Counter(value.id for op in stretch for value in op.inputs)
        for i, op in enumerate(stretch):
            for j, value in enumerate(op.outputs):
                if value.id in kept or uses[value.id] > inside[value.id]:
                    found.add((i, j))
    return sorted(found)


def _block(
    name: str, stretches: list[list[Op]], slots: list[list[int]], results: list[tuple[int, int]]
) -> tuple[Block, list[tuple[int, int]]]:
    first = stretches[0]
    made = {value.id for op in first for value in op.outputs}
    outside = [value for op in first for value in op.inputs if value.id not in made]
    inputs = tuple(Value(i, outside[uses[0]].type) for i, uses in enumerate(slots))
    # Which input a use reads is a matter of position: one outside value may feed several inputs.
    by_use = iter(
        [inputs[i] for _, i in sorted((u, i) for i, uses in enumerate(slots) for u in uses)]
    )
    inside: dict[int, Value] = {}
    body: list[Op] = []
    next_id = len(inputs)
    for position, op in enumerate(first):
        args = _rewire(op.args, inside, by_use)
        kwargs = tuple((key, _rewire(arg, inside, by_use)) for key, arg in op.kwargs)
        outputs = tuple(Value(next_id + i, value.type) for i, value in enumerate(op.outputs))
        next_id += len(outputs)
        inside.update(zip((value.id for value in op.outputs), outputs, strict=True))
        site = _common_site([stretch[position].site for stretch in stretches])
        assert isinstance(args, tuple)
        body.append(Op(name=op.name, args=args, kwargs=kwargs, outputs=outputs, site=site))
    outputs = tuple(body[i].outputs[j] for i, j in results)
    return Block(name=name, inputs=inputs, ops=tuple(body), outputs=outputs), results


def _rewire(arg: Arg, inside: dict[int, Value], by_use: Iterator[Value]) -> Arg:
    if isinstance(arg, Value):
        return inside[arg.id] if arg.id in inside else next(by_use)
    if isinstance(arg, tuple):
        return tuple(_rewire(item, inside, by_use) for item in arg)
    return arg


_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def _common_site(sites: list[Site]) -> Site:
    """One site for several: layer numbers that differ become `*`.

    The region is the first's: within a block, those that differ in one repetition do in all.
    """
    first = sites[0]
    if all(site.module == first.module for site in sites):
        return first
    patterns = {_INDEX.sub("*", site.module) for site in sites}
    module = patterns.pop() if len(patterns) == 1 else ""
    return Site(module or _common_prefix(sites), first.phase, first.source, region=first.region)


def _common_prefix(sites: list[Site]) -> str:
    paths = [site.module.split(".") for site in sites if site.module]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
