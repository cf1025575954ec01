"""Gradients of microbatches: added by the products that make them, or by kernels of their own."""

import torch
from torch import nn

from simulate.steps import trained
from supernode.machine import load_machine
from supernode.partition import partition
from supernode.simulate import Terms, simulate

WIDTH, ROWS = 2048, 4096


def test_products_that_add_to_sums_save_a_pass_over_each_gradient():
    with torch.device("meta"):
        model = nn.Linear(WIDTH, WIDTH, bias=False).to(torch.bfloat16)
        x = torch.empty(4 * ROWS, WIDTH, dtype=torch.bfloat16)
    plan = partition(trained(model, x, torch.sum), "micro=4")
    machine = load_machine("hgx-a100")
    together, apart = (
        simulate(plan, machine, terms=Terms(sums_apart=alone)) for alone in (False, True)
    )
    # Of three microbatches: the gradient read again, the sum read and written.
    passes_s = 3 * (2 + 4 + 4) * WIDTH**2 / machine.chip.memory.bandwidth_bytes_per_s.value
    saved_s = apart.step_s - together.step_s
    assert 0.3 * passes_s < saved_s < 2 * passes_s + 3 * 5e-6
    assert together.roofline_s <= together.step_s
