"""SI constants and the formatters that turn plain numbers into text.

Inside supernode every quantity is a plain number in a base unit: seconds, bytes, FLOP,
bytes per second, watts. The unit stands in the name (`latency_s`, `size_bytes`). Decimal
prefixes are powers of ten (GB = 1e9 bytes); binary ones are powers of two (GiB = 2**30 bytes).
"""

import re

KILO, MEGA, GIGA, TERA, PETA = 1e3, 1e6, 1e9, 1e12, 1e15
MICRO, MILLI = 1e-6, 1e-3
KIB, MIB, GIB = 2**10, 2**20, 2**30

_SI = ((1e18, "E"), (PETA, "P"), (TERA, "T"), (GIGA, "G"), (MEGA, "M"), (KILO, "k"))


def format_si(value: float, unit: str, digits: int = 3) -> str:
    """`value` with the SI prefix that keeps it readable.

    >>> format_si(2.888e17, "FLOP/s")
    '289 PFLOP/s'
    >>> format_si(0.0, "B/s")
    '0 B/s'
    """
    for scale, prefix in _SI:
        # 999.9 k rounds up to "1000 k", which reads worse than "1 M".
        if abs(value) >= scale * (1 - 0.5 * 10.0**-digits):
            return f"{_significant(value / scale, digits)} {prefix}{unit}"
    return f"{_significant(value, digits)} {unit}"


def format_bytes(size_bytes: float) -> str:
    """A size in decimal units, as datasheets print memory.

    >>> format_bytes(64e9)
    '64 GB'
    """
    return format_si(size_bytes, "B")


_SIZES = {
    "B": 1,
    "kB": KILO,
    "MB": MEGA,
    "GB": GIGA,
    "TB": TERA,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
}


def parse_bytes(text: str) -> float:
    """The bytes that `64GiB`, `80 GB` or `1e9` stand for.

    >>> parse_bytes("64GiB") / GIB, parse_bytes("80 GB")
    (64.0, 80000000000.0)

    Raises:
        ValueError: it is no positive number with such a unit.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    unit = _SIZES.get(found[2] or "B") if found else None
    if found is None or unit is None or not (size := float(found[1]) * unit):
        raise ValueError(f"{text!r} is no size; write it like 64GiB or 80GB")
    return size


def format_seconds(time_s: float) -> str:
    """A duration in s, ms, µs or ns, whichever keeps it readable.

    >>> format_seconds(0.0123)
    '12.3 ms'
    """
    for scale, unit in ((1.0, "s"), (MILLI, "ms"), (MICRO, "µs")):
        if abs(time_s) >= scale:
            return f"{_significant(time_s / scale, 3)} {unit}"
    return f"{_significant(time_s / 1e-9, 3)} ns" if time_s else "0 s"


def _significant(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text else text
