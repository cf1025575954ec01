"""The rules every Program obeys; run after capture, after each pass and after loading."""

from supernode.errors import VerifyError
from supernode.ir.places import elsewhere
from supernode.ir.printer import print_op
from supernode.ir.program import CALL, FETCH, WAIT, Block, Op, Program
from supernode.ir.types import Value


def verify(program: Program) -> Program:
    """`program` itself when it obeys the rules, so that passes can end in `return verify(p)`.

    The rules: each value is defined once and before its use, with one type; a call's arguments
    and results have the types of its block; each input and output has a port; an updated input
    has the type of its output; a host number enters only host ops and scalar arguments; what lies
    in another place than the chip's memory is fetched, and nothing else reads it.

    Raises:
        VerifyError: with the op, its site and the rule.
    """
    blocks = {block.name: block for block in program.blocks}
    if len(blocks) != len(program.blocks):
        raise VerifyError("two blocks have one name")
    for block in program.all_blocks():
        _verify_block(block, {} if block is not program.main else blocks)
    _verify_ports(program)
    _verify_places(program)
    return program


def _verify_block(block: Block, callees: dict[str, Block]) -> None:
    defined: dict[int, Value] = {}
    for value in block.inputs:
        _define(value, defined, block)
    for op in block.ops:
        for value in op.inputs:
            _use(value, defined, op)
        if op.name == CALL:
            _verify_call(op, callees)
        for value in op.outputs:
            _define(value, defined, op)
    for value in block.outputs:
        if defined.get(value.id) != value:
            raise VerifyError(f"block {block.name} returns {value}, which it does not define")


def _define(value: Value, defined: dict[int, Value], by: Block | Op) -> None:
    if value.id in defined:
        where = by.name if isinstance(by, Block) else _where(by)
        raise VerifyError(f"{value} is defined twice", where=where)
    defined[value.id] = value


def _use(value: Value, defined: dict[int, Value], op: Op) -> None:
    known = defined.get(value.id)
    if known is None:
        raise VerifyError(f"{value} is used before it is defined", where=_where(op))
    if known.type != value.type:
        wrong = f"{value} is {known.type} where it is defined and {value.type} where it is used"
        raise VerifyError(wrong, where=_where(op))


def _verify_call(op: Op, callees: dict[str, Block]) -> None:
    block = callees.get(op.block)
    if block is None:
        raise VerifyError(f"call of an unknown block {op.block!r}", where=_where(op))
    for label, got, want in (
        ("argument", op.inputs, block.inputs),
        ("result", op.outputs, block.outputs),
    ):
        if [value.type for value in got] != [value.type for value in want]:
            wrong = f"the {label}s of a call differ in type from those of block {op.block}"
            raise VerifyError(wrong, where=_where(op))


def _verify_ports(program: Program) -> None:
    main = program.main
    if len(program.inputs) != len(main.inputs) or len(program.outputs) != len(main.outputs):
        raise VerifyError("a port is missing: inputs and outputs must have one port each")
    if len(program.updates) != len(program.outputs):
        raise VerifyError("`updates` must name an input or None for each output")
    for output, source in zip(main.outputs, program.updates, strict=True):
        if source is None:
            continue
        if not 0 <= source < len(main.inputs):
            raise VerifyError(f"output {output} updates input {source}, which does not exist")
        if main.inputs[source].type != output.type:
            wrong = f"{output} ({output.type}) can't replace {main.inputs[source].type}"
            raise VerifyError(wrong, where=program.inputs[source].name)


def _where(op: Op) -> str:
    return f"{print_op(op)}   # {op.site}"


def _verify_places(program: Program) -> None:
    away = elsewhere(program.main)
    for op in program.main.ops:
        for value in op.inputs:
            if value.id in away and op.name not in (FETCH, WAIT):
                wrong = f"{value} lies in the place {away[value.id]!r} and is read by {op.name}"
                raise VerifyError(wrong, where=_where(op))
    for block in program.blocks:
        if any(op.name.startswith("place.") for op in block.ops):
            raise VerifyError(f"block {block.name} fetches or stores, which main alone may")
