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


def placed(error: Exception, where: str) -> TritonCpuError:
    """`error` with the place it happened at, unless it names one; a crash is a `CompileError`."""
    if isinstance(error, TritonCpuError):
        return type(error)(error.wrong, where=error.where or where, fix=error.fix)
    return CompileError(f"The compiler failed: {error!r}.", where=where)


def cause(error: Exception) -> BaseException | None:
    """What to raise the `placed` error from: the crash, if it was one."""
    return error.__cause__ if isinstance(error, TritonCpuError) else error


class UnsupportedOp(TritonCpuError):
    """The kernel uses an operation that has no meaning, or no lowering, on a CPU."""


class CompileError(TritonCpuError):
    """The compiler itself failed; the message names the op and the kernel's source line."""


class ArgumentError(TritonCpuError):
    """An argument of a launch is on another device, read-only, strided or of an unknown type."""


class KernelAssertion(TritonCpuError):
    """A `tl.device_assert` of the kernel, or a check of the sanitizer, failed."""
