"""The ops of a step in the order they ran, as they are recorded."""

from collections.abc import Callable, Collection

from supernode.ir import Arg, Op, Site, Type, Value

_LARGEST_CONE = 1000
KwArgs = tuple[tuple[str, Arg], ...]


class Tape:
    """A growing list of ops; `site()` says where in the user's step we are."""

    def __init__(self, site: Callable[[], Site]) -> None:
        self.site = site
        self.ops: list[Op] = []
        self._producers: dict[int, int] = {}
        self._next_id = 0

    def value(self, type_: Type) -> Value:
        """A new value that no op defines: an input."""
        self._next_id += 1
        return Value(self._next_id - 1, type_)

    def emit(
        self, name: str, args: tuple[Arg, ...], kwargs: KwArgs, types: tuple[Type, ...]
    ) -> tuple[Value, ...]:
        """Appends an op and gives its results."""
        outputs = tuple(self.value(type_) for type_ in types)
        for output in outputs:
            self._producers[output.id] = len(self.ops)
        op = Op(name=name, args=args, kwargs=kwargs, outputs=outputs, site=self.site())
        self.ops.append(op)
        return outputs

    def fixed_cone(self, value: Value, constants: Collection[int] = ()) -> tuple[Op, ...] | None:
        """The ops that compute `value`, in order; None where inputs do (the seed is one).

        `constants` are the ids of inputs whose content is known.
        """
        needed: set[int] = set()
        open_values = [value]
        while open_values:
            wanted = open_values.pop().id
            if wanted in constants:
                continue
            index = self._producers.get(wanted)
            if index is None or len(needed) > _LARGEST_CONE:
                return None
            if index not in needed:
                needed.add(index)
                open_values += self.ops[index].inputs
        return tuple(self.ops[index] for index in sorted(needed))
