"""One row of the op table, and the table itself."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from supernode.errors import UnknownOp
from supernode.ir import Arg, HostType, Op, Type, Value, print_typed
from supernode.ops.formula import Formula
from supernode.ops.shape import Shape

KERNEL = "supernode"
"""The namespace of the user's kernels."""
Unit = Literal["matmul", "vector", "none"]
Split = Mapping[str, tuple[str, ...]]
"""Which mesh axes split each factor, outermost first."""
Fresh = Callable[[Type], Value]
"""Makes a new value of a type."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one execution takes, whatever the machine: FLOP and bytes, by the unit that does it.

    `flops` of the matmul unit count a multiply-add as 2, as torch's FlopCounterMode does. `shape`
    is that of a contraction; `launches` how many kernels it is.
    """

    flops: float = 0.0
    bytes_read: float = 0.0
    bytes_written: float = 0.0
    unit: Unit = "none"
    dtype: str = "float32"
    shape: Shape | None = None
    launches: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the system knows of an op.

    - `formula`: its named factors; sharding is derived from them.
    - `linear`: groups of input positions the op is linear in together: partial sums in all of a
      group (and none elsewhere) give a partial sum.
    - `passes`: other kinds of partial results that pass through, when all tensors it reads hold
      them; `moves` ops only rearrange elements, so any kind does.
    - `cost`: FLOP and bytes by shapes.
    - `local`: the op on local shapes, given the split of its factors and the local output types.
    - `placed`: the factors of which the local form must know where its part lies: it is one range.
    - `expand`: the same as several ops, used where a factor that the formula marks whole must be
      split; None for arguments it has no steps for.
    - `view`: the output shares its first input's memory.
    - `sizes`: whether the local form holds sizes that differ with the number of rows; None: if it
      is not the op itself.
    """

    name: str
    formula: Callable[[Op], Formula]
    cost: Callable[[Op], Cost]
    linear: Callable[[Op], tuple[tuple[int, ...], ...]]
    local: Callable[[Op, Split, tuple[Type, ...]], Op]
    placed: frozenset[str] = frozenset()
    expand: Callable[[Op, Fresh], list[Op] | None] | None = None
    passes: Callable[[Op], frozenset[str]] = lambda op: frozenset()
    moves: bool = False
    view: bool = False
    sizes: bool | None = None
    note: str

    @property
    def ragged(self) -> bool:
        """Whether it takes rows of which it is known only when the step runs how many there are."""
        return self.local is same if self.sizes is None else not self.sizes


_TABLE: dict[str, Row] = {}
_KERNELS: dict[str, Row] = {}
"""Rows of the user's kernels; a kernel written anew replaces its row."""


def register(rows: Iterable[Row]) -> None:
    """Adds rows to the table; a second row for one op is a bug."""
    for row in rows:
        assert row.name not in _TABLE, f"two rows for {row.name}"
        _TABLE[row.name] = row


def register_kernel(row: Row) -> None:
    """Adds the row of a kernel of the user, which is no part of the table."""
    assert row.name not in _TABLE, f"two rows for {row.name}"
    _KERNELS[row.name] = row


def table() -> dict[str, Row]:
    """All rows by op name."""
    return dict(_TABLE)


def row(op: Op) -> Row:
    """The row of `op`.

    Raises:
        UnknownOp: there is none; the error names the op, its module and the file to edit.
    """
    found = _TABLE.get(op.name) or _KERNELS.get(op.name)
    if found is None:
        fix = (
            f"add a row to src/supernode/ops/{_family_file(op.name)} (docs/howto/add-an-op.md), "
            "or run on one chip, which needs none"
        )
        if op.name.startswith(f"{KERNEL}."):
            fix = "import the module in which this kernel is written"
        wrong = f"no row in the op table for {op.name}"
        raise UnknownOp(wrong, op=print_typed(op), where=str(op.site), fix=fix)
    return found


def _family_file(name: str) -> str:
    base = f"{name.split('.')[:2][-1]}."
    for word, file in (
        ("batch_norm", "batch_norm.py"),
        ("norm", "normalisation.py"),
        ("softmax", "normalisation.py"),
        ("attention", "attention.py"),
        ("grouped_mm", "grouped.py"),
        ("mm.", "matmul.py"),
        ("conv", "convolution.py"),
        ("pool2d", "pooling.py"),
        ("pool", "spatial.py"),
        ("pad", "spatial.py"),
        ("upsample", "spatial.py"),
        ("loss", "loss.py"),
        ("view", "view.py"),
        ("scatter", "index.py"),
        ("index", "index.py"),
        ("gather", "index.py"),
        ("embedding", "lookup.py"),
        ("fft", "spectral.py"),
    ):
        if word in base:
            return file
    return "pointwise.py"


def cost(op: Op) -> Cost:
    """FLOP and bytes of `op` for the shapes it has here.

    Raises:
        UnknownOp: the op has no row.
    """
    if op.name.startswith("host.") or op.name == "aten._local_scalar_dense":
        return Cost()
    return row(op).cost(op)


def is_view(op: Op) -> bool:
    """Whether the output of `op` shares its first input's memory."""
    found = _TABLE.get(op.name)
    return found is not None and found.view


def makes_new_memory(op: Op) -> bool:
    """Whether every result of `op` is sure to lie in memory of its own.

    An op without a row may hand back an operand, as `dropout` does outside training.
    """
    found = _TABLE.get(op.name)
    return found is not None and not found.view


# The columns that most rows share.


def traffic(op: Op) -> tuple[float, float]:
    """Bytes read and written when every input and output crosses memory once."""
    read = sum(value.type.size_bytes for value in dict.fromkeys(op.inputs))
    return float(read), float(sum(value.type.size_bytes for value in op.outputs))


def streaming(flops_per_element: float) -> Callable[[Op], Cost]:
    """Cost of an op that reads its inputs once and does some work per output element."""

    def rule(op: Op) -> Cost:
        read, written = traffic(op)
        types = [v.type for v in op.inputs + op.outputs if not isinstance(v.type, HostType)]
        most = max(type_.numel for type_ in types)
        return Cost(flops_per_element * most, read, written, "vector", types[-1].dtype)

    return rule


def free(op: Op) -> Cost:
    """Nothing is computed and nothing moves."""
    return Cost()


def nonlinear(op: Op) -> tuple[tuple[int, ...], ...]:
    """Linear in no input."""
    return ()


def linear_in(*groups: tuple[int, ...]) -> Callable[[Op], tuple[tuple[int, ...], ...]]:
    """Linear in each of these groups of inputs."""
    return lambda op: groups


def passing(kind: str) -> Callable[[Op], frozenset[str]]:
    """Lets partial results of one kind through."""
    return lambda op: frozenset({kind})


def linear_in_all(op: Op) -> tuple[tuple[int, ...], ...]:
    """Linear in all inputs together."""
    return (tuple(range(len(op.inputs))),)


def same(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """The local form of an op whose arguments hold no sizes."""
    return op


def sized(position: int) -> Callable[[Op, Split, tuple[Type, ...]], Op]:
    """The local form of an op whose argument at `position` is the shape of its output."""

    def rule(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
        (out,) = outputs
        assert not isinstance(out, HostType)
        return with_arg(op, position, out.shape)

    return rule


def int_of(arg: Arg) -> int:
    """An argument that is a whole number."""
    assert isinstance(arg, int)
    return arg


def with_arg(op: Op, position: int, arg: Arg) -> Op:
    """`op` with one positional argument replaced."""
    args = (*op.args[:position], arg, *op.args[position + 1 :])
    return replace(op, args=args)
