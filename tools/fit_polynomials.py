"""Fits the polynomials of `triton_cpu`'s float32 math and writes `emit/polynomials.py`.

Run it with mpmath installed: `python tools/fit_polynomials.py --write`. Each polynomial is the
interpolant at Chebyshev nodes, computed with 60 digits, which is within a small factor of the best
one; its coefficients are then rounded to float32.
"""

import argparse
from pathlib import Path

import mpmath as mp

TARGET = Path(__file__).parents[1] / "src/triton_cpu/emit/polynomials.py"
mp.mp.dps = 60


def fit(function, low, high, degree):
    """Coefficients, lowest power first, of the interpolant of `function` on [low, high]."""
    low, high = mp.mpf(low), mp.mpf(high)
    count = degree + 1
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * count))
        for k in range(count)
    ]
    rows = mp.matrix([[node**power for power in range(count)] for node in nodes])
    solution = mp.lu_solve(rows, mp.matrix([function(node) for node in nodes]))
    return [float(value) for value in solution]


def _tail(function, terms, power):
    """(function(x) − its first terms) / x^power, without cancellation near 0."""

    def tail(x):
        if x == 0:
            x = mp.mpf("1e-20")
        return (function(x) - sum(c * x**k for k, c in terms)) / x**power

    return tail


def _in_square(function):
    """`function` of x as a function of x²."""
    return lambda square: function(mp.sqrt(square) if square > 0 else mp.mpf("1e-15"))


def polynomials():
    """Name → (what it approximates, coefficients)."""
    half_log2 = mp.log(2) / 2
    eighth = (mp.pi / 4) ** 2 * mp.mpf("1.02")
    return {
        "EXP2": ("2^x, |x| ≤ 1/2", fit(lambda x: mp.mpf(2) ** x, -0.5, 0.5, 6)),
        "EXP": ("e^x, |x| ≤ ln 2 / 2", fit(mp.exp, -half_log2, half_log2, 6)),
        "LOG": (
            "(ln(1+x) − x) / x², √½ − 1 ≤ x ≤ √2 − 1",
            fit(_tail(mp.log1p, [(1, 1)], 2), mp.sqrt(0.5) - 1, mp.sqrt(2) - 1, 9),
        ),
        "SIN": (
            "(sin x − x) / x³ in x², |x| ≤ π/4",
            fit(_in_square(_tail(mp.sin, [(1, 1)], 3)), 0, eighth, 3),
        ),
        "COS": (
            "(cos x − 1 + x²/2) / x⁴ in x², |x| ≤ π/4",
            fit(_in_square(_tail(mp.cos, [(0, 1), (2, mp.mpf(-0.5))], 4)), 0, eighth, 3),
        ),
        "TANH": (
            "(tanh x − x) / x³ in x², |x| ≤ 0.625",
            fit(_in_square(_tail(mp.tanh, [(1, 1)], 3)), 0, 0.625**2, 5),
        ),
        "ERF": (
            "erf(x) / x − 1 in x², |x| ≤ 1",
            fit(_in_square(lambda x: mp.erf(x) / x - 1), 0, 1, 8),
        ),
        "LOG_ERFC": (
            "ln erfc x in x − 2, 1 ≤ x ≤ 4",
            fit(lambda x: mp.log(mp.erfc(x + 2)), -1, 2, 10),
        ),
    }


def text():
    """The Python source of the table."""
    lines = ['"""Made by tools/fit_polynomials.py; coefficients, lowest power first."""', ""]
    for name, (what, coefficients) in polynomials().items():
        lines.append(f"# {what}")
        lines.append(f"{name} = (")
        lines += [f"    {value!r}," for value in coefficients]
        lines += [")", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the file; else print it")
    if parser.parse_args().write:
        TARGET.write_text(text())
    else:
        print(text())
