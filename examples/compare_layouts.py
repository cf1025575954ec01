"""Which layout is fastest on a machine you don't have? Captured once, planned for each.

Run it: `python examples/compare_layouts.py`
"""

import supernode as sn
from supernode.capture import capture
from supernode.models import recipe

MACHINE = "gb200-nvl72"
LAYOUTS = ("dp=64", "zero1=64", "fsdp=64", "dp=8,fsdp=8", "fsdp=8,tp=8", "fsdp=8,tp=8,sp")


def main() -> None:
    # On "meta" no weight is allocated: any model of yours works the same.
    job = recipe("llama3-8b").build(batch=64, device="meta")
    program = capture(job.step, job.model, job.optimizer, job.inputs, name="llama3-8b").program
    machine = sn.load_machine(MACHINE)
    print(f"llama3-8b, {job.tokens_per_step:,} tokens a step, 64 chips of {machine.title}")
    for layout in LAYOUTS:
        result = sn.simulate(sn.partition(program, layout), machine, tokens=job.tokens_per_step)
        memory = f"{result.memory.peak_bytes / 1e9:5.1f} GB a chip"
        if result.fits:
            exposed = result.exposed_comm_s / result.step_s
            print(f"{layout:15} {result.step_s:.3f} s, {exposed:5.1%} waiting for others, {memory}")
        else:
            print(f"{layout:15} does not fit: {memory}")


if __name__ == "__main__":
    main()
