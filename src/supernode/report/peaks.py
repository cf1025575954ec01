"""The peaks of whole machines, and which of the published ones they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from supernode.machine import Machine, Sourced
from supernode.trace import Json
from supernode.units import PETA, TERA


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The dense peak of a machine in FLOP/s by one source: `chips` times that of a chip."""

    number: Sourced
    chips: int

    @property
    def flops_per_s(self) -> float:
        """That of all chips."""
        return self.chips * self.number.value


def peaks_of(machine: Machine) -> list[Peak]:
    """The peak in the type that computes bfloat16 here, then what other sources say of it."""
    key = f"chip.peak_flops_per_s.{machine.bf16_dtype}"
    others = [each.number for each in machine.alternatives if each.key == key]
    numbers = [machine.chip.peak("bfloat16"), *others]
    return [Peak(number=number, chips=machine.chips) for number in numbers]


def peak_sentences(machines: Sequence[Machine]) -> Iterator[str]:
    """For each machine which published peak is used, and how the first compares with the others."""
    for machine in machines:
        used, *others = peaks_of(machine)
        said = (
            f"{machine.name}: {_total(used)} PFLOP/s dense {machine.bf16_dtype}, "
            f"{machine.chips} x {used.number.value / TERA:,.4g} TFLOP/s by {used.number.source}"
        )
        by = (f"{_total(p)} by {p.number.source} ({p.number.value / TERA:,.4g})" for p in others)
        yield said + "".join(f"; {each}" for each in by)
    first = machines[0]
    for other in machines[1:]:
        yield f"{first.name} : {other.name} = {' or '.join(_ratios(first, other))}"


def _ratios(first: Machine, other: Machine) -> Iterator[str]:
    """The ratio of the peaks that are used, then with what other sources say of the first."""
    (base, *_) = peaks_of(other)
    for peak in peaks_of(first):
        ratio = peak.flops_per_s / base.flops_per_s
        yield f"{_total(peak)} : {_total(base)} = {ratio:.2f} by {peak.number.source}"


def _total(peak: Peak) -> str:
    return f"{peak.flops_per_s / PETA:.4g}"


def peaks_document(machine: Machine) -> list[Json]:
    """The peaks of a machine, that which is used first."""
    return [
        {
            "flops_per_s": peak.flops_per_s,
            "flops_per_s_per_chip": peak.number.value,
            "dtype": machine.bf16_dtype,
            "source": peak.number.source,
            "date": peak.number.date,
            "kind": peak.number.kind,
        }
        for peak in peaks_of(machine)
    ]
