"""Where chunks of a pipeline begin, if the user says so by the names of modules."""

from collections.abc import Sequence

from supernode.errors import LayoutError, near_matches


def named_ends(names: Sequence[str], modules: Sequence[str]) -> list[int]:
    """The first step of each chunk but the first; `modules[i]` is what step `i` belongs to.

    Each chunk begins where the module of its name does, `layers.3` or all of `layers`. A repeated
    block is one step, so none begins inside of it.

    Raises:
        LayoutError: no step begins a module of that name, or it does not come after the one before.
    """
    begins: dict[str, int] = {}
    for step, module in enumerate(modules):
        words = module.split(".")
        for length in range(1, len(words) + 1):
            begins.setdefault(".".join(words[:length]), step)
    ends, before = [0], "the first chunk"
    for name in names:
        if name not in begins:
            raise LayoutError(
                f"no chunk can begin with {name!r}", fix=near_matches(name, filter(None, begins))
            )
        if begins[name] <= ends[-1]:
            raise LayoutError(
                f"{name} does not begin after {before}",
                fix="name modules in the order in which forward comes to them",
            )
        ends.append(begins[name])
        before = name
    return ends[1:]
