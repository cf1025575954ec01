"""Whole train steps, captured and run, as samples: each op once for each set of types."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ops.calls import Sample, execute
from supernode.capture import Captured, capture
from supernode.ir import CALL, Block, Program
from supernode.kernels.host import FUNCTIONS, INFIX
from supernode.models.gpt import GPT, GPTConfig
from supernode.models.llama import Llama, LlamaConfig

Step = tuple[nn.Module, torch.optim.Optimizer, Callable[..., Tensor], tuple[Tensor, ...]]
BATCH = (4, 8)


def gpt() -> nn.Module:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layers=2, d_model=16, n_heads=4, context=8, vocab=24))


def llama() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_heads": 4, "n_kv_heads": 2, "d_feed_forward": 12, "vocab": 24, "context": 8}
    return Llama(LlamaConfig(n_layers=2, d_model=16, **sizes))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.1)


def train_step(
    model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], loss: Any
) -> Step:
    """Loss, backward, clipping, optimizer and schedule over one batch of tokens."""
    optimizer = make_optimizer(model)
    scheduler = LambdaLR(optimizer, lambda i: 0.9**i)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        value = loss(model, tokens, targets)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        return value.detach()

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(24, BATCH, generator=generator)
    return model, optimizer, step, (tokens, tokens.roll(-1, 1))


def ran(step: Step) -> dict[str, Sample]:
    """The ops of one step by text, with what they were given and what they gave."""
    model, optimizer, function, args = step
    captured = capture(function, model, optimizer, args)
    program = captured.program
    found: dict[str, Sample] = {}
    for sample in _run(program, program.main, _inputs(captured, args)):
        found.setdefault(str(sample), sample)
    return found


def _inputs(captured: Captured, args: tuple[Any, ...]) -> list[Any]:
    values = captured.inputs() | captured.host_values() | captured.bind(*args)
    return [values[port.name] for port in captured.program.inputs]


def _run(program: Program, block: Block, inputs: list[Any]) -> Iterator[Sample]:
    known = dict(zip((value.id for value in block.inputs), inputs, strict=True))
    for op in block.ops:
        given = tuple(known[value.id] for value in op.inputs)
        if op.name == CALL:
            outputs = yield from _run(program, program.block(op.block), list(given))
        elif op.name.startswith("host."):
            outputs = (_host(op.name.removeprefix("host."), op.args, known),)
        else:
            outputs = execute(op, given)
            if op.name != "aten._local_scalar_dense":
                yield Sample(op=op, inputs=given, outputs=outputs)
        known |= dict(zip((value.id for value in op.outputs), outputs, strict=True))
    return tuple(known[value.id] for value in block.outputs)


def _host(name: str, args: tuple[Any, ...], known: dict[int, Any]) -> float:
    numbers = [known[arg.id] if hasattr(arg, "id") else arg for arg in args]
    if name in INFIX:
        return eval(f"a {INFIX[name]} b", {"a": numbers[0], "b": numbers[1]})
    return FUNCTIONS[name](*numbers)
