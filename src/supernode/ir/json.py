"""A Program as JSON and back, without loss: `from_json(to_json(p)) == p`."""

import json
from typing import Any

from supernode.errors import VerifyError
from supernode.ir.program import Block, Op, Port, Program, Site
from supernode.ir.types import Arg, DType, HostType, TensorType, Type, Value
from supernode.ir.verify import verify

FORMAT = "supernode-program-1"


def to_json(program: Program) -> str:
    """One line of JSON; floats keep every bit, infinities and NaN are written as strings."""
    return json.dumps({"format": FORMAT, **program_out(program)}, separators=(",", ":"))


def from_json(text: str) -> Program:
    """The Program that `to_json` wrote.

    Raises:
        VerifyError: the text is not such a document, or what it holds breaks a rule of the IR.
    """
    return program_in(read_document(text, FORMAT))


def read_document(text: str, format_: str) -> dict[str, Any]:
    """A JSON object that says it is of `format_`.

    Raises:
        VerifyError: it does not, or is no JSON object.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise VerifyError(f"not JSON: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != format_:
        raise VerifyError(f"expected a document of format {format_}, got {found!r}")
    return document


def program_out(program: Program) -> dict[str, Any]:
    """A Program as plain lists and dicts."""
    return {
        "name": program.name,
        "inputs": [_port_out(port) for port in program.inputs],
        "outputs": [_port_out(port) for port in program.outputs],
        "updates": list(program.updates),
        "blocks": [_block_out(block) for block in program.blocks],
        "main": _block_out(program.main),
    }


def program_in(data: dict[str, Any]) -> Program:
    """What `program_out` gave, verified.

    Raises:
        VerifyError: it is damaged.
    """
    try:
        program = Program(
            name=data["name"],
            main=_block_in(data["main"]),
            blocks=tuple(_block_in(block) for block in data["blocks"]),
            inputs=tuple(_port_in(port) for port in data["inputs"]),
            outputs=tuple(_port_in(port) for port in data["outputs"]),
            updates=tuple(data["updates"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise VerifyError(f"not a saved Program: {error!r}") from error
    return verify(program)


def _port_out(port: Port) -> list[str]:
    return [port.name, port.role, port.of]


def _port_in(data: list[Any]) -> Port:
    return Port(name=data[0], role=data[1], of=data[2])


def _block_out(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "inputs": [_value_out(value) for value in block.inputs],
        "ops": [_op_out(op) for op in block.ops],
        "outputs": [value.id for value in block.outputs],
    }


def _block_in(data: dict[str, Any]) -> Block:
    values: dict[int, Value] = {}
    inputs = tuple(_value_in(value, values) for value in data["inputs"])
    ops = tuple(_op_in(op, values) for op in data["ops"])
    outputs = tuple(values[i] for i in data["outputs"])
    return Block(name=data["name"], inputs=inputs, ops=ops, outputs=outputs)


def _op_out(op: Op) -> list[Any]:
    return [
        op.name,
        [_arg_out(arg) for arg in op.args],
        {name: _arg_out(arg) for name, arg in op.kwargs},
        [_value_out(value) for value in op.outputs],
        op.block,
        _site_out(op.site),
    ]


def _site_out(site: Site) -> list[str]:
    """Its fields, without the empty ones at the end that most sites have."""
    rare = (site.task, site.region) if site.region else (site.task,) if site.task else ()
    return [site.module, site.phase, site.source, *rare]


def _op_in(data: list[Any], values: dict[int, Value]) -> Op:
    name, args, kwargs, outputs, block, site = data
    return Op(
        name=name,
        args=tuple(_arg_in(arg, values) for arg in args),
        kwargs=tuple((key, _arg_in(arg, values)) for key, arg in kwargs.items()),
        outputs=tuple(_value_in(value, values) for value in outputs),
        block=block,
        site=Site(*site),
    )


def _value_out(value: Value) -> list[Any]:
    return [value.id, *type_out(value.type)]


def _value_in(data: list[Any], values: dict[int, Value]) -> Value:
    value = Value(data[0], type_in(data[1:]))
    values[value.id] = value
    return value


def type_out(type_: Type) -> list[Any]:
    """A type as `[dtype, shape]`, a host number as `["host", dtype]`."""
    if isinstance(type_, HostType):
        return ["host", type_.dtype]
    return [type_.dtype, list(type_.shape)]


def type_in(data: list[Any]) -> Type:
    """What `type_out` wrote."""
    if data[0] == "host":
        return HostType(data[1])
    return TensorType(data[0], tuple(data[1]))


def _arg_out(arg: Arg) -> Any:
    if isinstance(arg, Value):
        return {"v": arg.id}
    if isinstance(arg, DType):
        return {"d": arg.name}
    if isinstance(arg, tuple):
        return [_arg_out(item) for item in arg]
    if isinstance(arg, float) and not _finite(arg):
        return {"f": repr(arg)}
    return arg


def _arg_in(data: Any, values: dict[int, Value]) -> Arg:
    if isinstance(data, list):
        return tuple(_arg_in(item, values) for item in data)
    if isinstance(data, dict):
        ((kind, content),) = data.items()
        if kind == "v":
            return values[content]
        return DType(content) if kind == "d" else float(content)
    return data


def _finite(number: float) -> bool:
    return number - number == 0
