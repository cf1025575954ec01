"""What a chip that goes on computing keeps up, against products that others measured."""

from statistics import median

import pytest

from supernode.machine import Chip, load_machine
from supernode.ops import Cost, Product
from supernode.simulate import op_time

MEASURED = (
    (4096, 57344, 8192, 5.667e-3),
    (4096, 8192, 28672, 2.647e-3),
    (4096, 49152, 8192, 4.794e-3),
    (4096, 8192, 24576, 2.235e-3),
    (4096, 44032, 8192, 4.221e-3),
    (4096, 8192, 22016, 1.988e-3),
)
"""Products m, n, k in 16 bits on an H100, and their seconds.

**Source:** Microsoft, vidur, data/profiling/compute/h100, mlp.csv of Llama-2-70B, Qwen-72B and
CodeLlama-34B at 4,096 tokens, medians, 2024-05 (none of it is in the fit of the chip).
"""


def product(m: int, n: int, k: int, dtype: str = "bfloat16") -> Cost:
    shape = Product(m=m, n=n, k=k)
    read, written = 2.0 * (m + n) * k, 2.0 * m * n
    return Cost(2.0 * m * n * k, read, written, "matmul", dtype, shape=shape)


def test_long_products_of_an_h100_take_what_others_measured():
    chip = load_machine("hgx-h100").chip
    errors = [op_time(product(m, n, k), chip).time_s / s - 1 for m, n, k, s in MEASURED]
    assert abs(median(errors)) < 0.03
    assert max(map(abs, errors)) < 0.07


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("hgx-a100", "bfloat16"),
        *((name, dtype) for name in ("hgx-h200", "hgx-b200") for dtype in ("bfloat16", "float8")),
        ("gb300-nvl72", "float4"),
    ],
)
def test_no_product_is_faster_than_the_chip_keeps_up(name: str, dtype: str):
    chip = load_machine(name).chip
    fit = chip.kernel("matmul", dtype)
    assert fit is not None
    for size in (1024, 4096, 16384):
        cost = product(size, size, size, dtype)
        least_s = cost.flops / (chip.peak(dtype).value * fit["steady"])
        assert op_time(cost, chip).time_s >= least_s


def test_few_rows_read_their_weights_as_fast_as_before():
    with_limit = load_machine("hgx-h100").chip
    assert _share(product(16, 8192, 8192), with_limit) > 0.6


def _share(cost: Cost, chip: Chip) -> float:
    """Of the memory's rate."""
    moved = cost.bytes_read + cost.bytes_written
    return moved / chip.memory.bandwidth_bytes_per_s.value / op_time(cost, chip).time_s
