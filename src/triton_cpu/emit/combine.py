"""User functions on elements: what `tl.reduce`, `tl.associative_scan`, `tl.map_elementwise` take.

They run on scalars, or on many lanes at once. An `if` on lanes computes both arms and selects; a
function with several blocks (early returns) runs lane by lane.
"""

from ..errors import UnsupportedOp
from ..tile.ops import Block, Op, Region, Value
from ..tile.types import I1, I32, Elem
from .context import Context
from .elementwise import Apply, apply
from .writer import vector

Names = dict[Value, str]


def combine(c: Context, region: Region, args: list[str], lanes: int) -> list[str]:
    """Writes the function's ops for `lanes` lanes (0: scalars); gives what it returns."""
    block = region.block
    names: Names = dict(zip(block.args, args, strict=True))
    if len(region.blocks) == 1:
        return _block(c, block, names, lanes)
    if lanes:
        return _lane_by_lane(c, region, args, lanes)
    return _graph(c, region, names)


def _block(c: Context, block: Block, names: Names, lanes: int) -> list[str]:
    for op in block.ops[:-1]:
        _op(c, op, names, lanes)
    return [_name(c, value, names, lanes) for value in block.ops[-1].operands]


def _name(c: Context, value: Value, names: Names, lanes: int) -> str:
    """The lanes of a value of the function, or of a scalar from outside it."""
    if value in names:
        return names[value]
    return c.w.splat(value.type.elem, c.scalar(value), lanes)


def _op(c: Context, op: Op, names: Names, lanes: int) -> None:
    if op.name == "const":
        elem = op.result.type.elem
        names[op.result] = c.w.constant(op.attrs["value"], elem, lanes)
    elif op.name == "poison":
        names[op.result] = c.w.constant(0, op.result.type.elem, lanes)
    elif op.name == "if":
        _if(c, op, names, lanes)
    elif op.is_elementwise:
        given = [_name(c, value, names, lanes) for value in op.operands]
        kinds = [value.type.elem for value in op.operands]
        kind = op.result.type
        names[op.result] = apply(
            c.w,
            Apply(
                op.name, op.attrs, given, kinds, kind.elem, lanes, kind.pointee, c.target.contract
            ),
        )
    else:
        raise UnsupportedOp(f"A function on elements can't use {op.name}.", where=str(op.location))


def _if(c: Context, op: Op, names: Names, lanes: int) -> None:
    condition = _name(c, op.operands[0], names, lanes)
    arms = [_block(c, region.block, dict(names), lanes) for region in op.regions]
    truth = vector(I1, lanes)
    for result, yes, no in zip(op.results, *arms, strict=True):
        kind = vector(result.type.elem, lanes)
        names[result] = c.w.let(f"select {truth} {condition}, {kind} {yes}, {kind} {no}")


def _graph(c: Context, region: Region, names: Names) -> list[str]:
    """Blocks that jump to each other, on scalars; arguments and results live in variables."""
    w = c.w
    stem = w.name("fn")
    variables = {
        value: w.alloca(value.type.elem.memory)
        for block in region.blocks[1:]
        for value in block.args
    }
    labels = {block.label: f"{stem}.{number}" for number, block in enumerate(region.blocks)}
    targets = {block.label: block for block in region.blocks}
    returned: list[tuple[Elem, str]] = []

    def pass_on(block: Block, operands: list[Value]) -> None:
        for value, operand in zip(block.args, operands, strict=True):
            w.store(value.type.elem, _name(c, operand, names, 0), variables[value])
        w.jump(labels[block.label])

    for number, block in enumerate(region.blocks):
        if number:
            w.label(labels[block.label])
            for value in block.args:
                names[value] = w.load(value.type.elem, variables[value])
        for op in block.ops[:-1]:
            _op(c, op, names, 0)
        last = block.ops[-1]
        if last.name == "br":
            pass_on(targets[last.attrs["targets"][0]], last.operands)
        elif last.name == "cond_br":
            _, yes, _ = last.attrs["segments"]
            first, second = (targets[label] for label in last.attrs["targets"])
            edge = w.name("edge")
            w.branch(_name(c, last.operands[0], names, 0), f"{edge}.yes", f"{edge}.no")
            w.label(f"{edge}.yes")
            pass_on(first, last.operands[1 : 1 + yes])
            w.label(f"{edge}.no")
            pass_on(second, last.operands[1 + yes :])
        else:
            if not returned:
                kinds = [value.type.elem for value in last.operands]
                returned = [(elem, w.alloca(elem.memory)) for elem in kinds]
            for (elem, place), value in zip(returned, last.operands, strict=True):
                w.store(elem, _name(c, value, names, 0), place)
            w.jump(f"{stem}.end")
    w.label(f"{stem}.end")
    return [w.load(elem, place) for elem, place in returned]


def _lane_by_lane(c: Context, region: Region, args: list[str], lanes: int) -> list[str]:
    w = c.w
    elems = [value.type.elem for value in region.block.args]
    places = [w.alloca(f"<{lanes} x {elem.memory}>") for elem in elems]
    for elem, place, arg in zip(elems, places, args, strict=True):
        w.store(elem, arg, place, lanes)
    results = elems[: len(elems) // 2]  # of a fold: half the arguments, and as many results
    outs = [w.alloca(f"<{lanes} x {elem.memory}>") for elem in results]
    with w.loop(lanes) as index:
        given = [
            w.load(elem, w.offset(elem, place, index, I32))
            for elem, place in zip(elems, places, strict=True)
        ]
        for elem, out, value in zip(results, outs, combine(c, region, given, 0), strict=True):
            w.store(elem, value, w.offset(elem, out, index, I32))
    return [w.load(elem, out, lanes) for elem, out in zip(results, outs, strict=True)]
