"""Every error a user of this backend can see: what is wrong, where it is, what to do."""


class TritonCpuError(Exception):
    """A kernel can't be compiled for, or launched on, this CPU.

    `str(error)` is `wrong`, then one line each for `where` and `fix` where they are given.
    """

    def __init__(self, wrong: str, *, where: str = "", fix: str = "") -> None:
        self.wrong = wrong
        self.where = where
        self.fix = fix
        lines = [wrong]
        lines += [f"  {label}: {text}" for label, text in (("where", where), ("fix", fix)) if text]
        super().__init__("\n".join(lines))

    def __reduce__(self):  # exceptions with keyword arguments do not pickle by themselves
        return (_rebuild, (type(self), self.wrong, self.where, self.fix))


def _rebuild(kind: type[TritonCpuError], wrong: str, where: str, fix: str) -> TritonCpuError:
    return kind(wrong, where=where, fix=fix)


class UnsupportedOp(TritonCpuError):
    """The kernel uses an operation that has no meaning, or no lowering, on a CPU."""


class CompileError(TritonCpuError):
    """The compiler itself failed; the message names the op and the kernel's source line."""


class ArgumentError(TritonCpuError):
    """An argument of a launch is on another device, read-only, strided or of an unknown type."""


class KernelAssertion(TritonCpuError):
    """A `tl.device_assert` of the kernel, or a check of the sanitizer, failed."""
