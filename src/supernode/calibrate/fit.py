"""From timed ops and transfers to the parameters of `simulate`'s own formulas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from supernode.calibrate.measure import Sample, Transfer
from supernode.calibrate.search import Found, Values, fitted
from supernode.machine import Chip, Fit, Machine, Sourced
from supernode.machine.fit import KERNELS, MAY_HAVE, TRANSPORT
from supernode.simulate import collective_time, op_time

START: Values = {
    "launch_s": 3e-6,
    "memory": 0.8,
    "sustained": 0.9,
    "overlap": 3.0,
    "tile_s": 1e-6,
    "split_s": 2e-6,
    "draw": 2.0,
    "reread": 0.3,
    "grain": 8.0,
    "score_s": 1e-10,
    "cache_bytes": 1e6,
    "cache_bytes_per_s": 4e10,
}
LINKS: Values = {
    **{"start_s": 5e-6, "short_hop_s": 2e-6, "short_share": 0.3},
    **{"middle_hop_s": 5e-6, "middle_share": 0.6, "long_hop_s": 1e-5, "long_share": 0.8},
    **{"pair_share": 1.0, "peer_s": 1e-6, "exchange_start_s": 2e-6, "exchange_share": 0.3},
    **{"exchange_long_s": 1e-5, "exchange_long_share": 0.8},
}
"""Where the searches start."""
MOST: Values = {
    **{"memory": 1.0, "sustained": 1.0, "overlap": 8.0, "reread": 4.0},
    **{name: 1.0 for name in TRANSPORT if name.endswith("share")},
}
assert set(LINKS) == set(TRANSPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """Where the numbers of a calibration come from."""

    source: str
    date: str

    def number(self, value: float, note: str = "") -> Sourced:
        """A number measured here."""
        return Sourced(value=value, source=self.source, date=self.date, kind="measured", note=note)

    def fit(self, found: Found) -> Fit:
        """Parameters found here."""
        return Fit(
            values={name: self.number(value) for name, value in found.values.items()},
            rows=found.rows,
            median_error=found.median_error,
            p90_error=found.p90_error,
        )


def kernel(
    chip: Chip, family: str, dtype: str, samples: Sequence[Sample], birth: Birth
) -> tuple[str, Fit]:
    """The parameters of a family of kernels on `chip`, by its key there."""
    key = f"{family}.{dtype}"
    names = (*KERNELS[family], *(name for name in MAY_HAVE.get(family, ()) if name in START))

    def predict(values: Values, which: Sequence[int]) -> list[float]:
        fit = Fit(values={name: birth.number(value) for name, value in values.items()})
        tried = replace(chip, kernels={key: fit})
        return [op_time(samples[i].cost, tried).time_s for i in which]

    start = {name: START[name] for name in names}
    found = fitted(predict, [sample.seconds for sample in samples], start, MOST)
    return key, birth.fit(found)


def vector_rate(samples: Sequence[Sample]) -> float:
    """The usual rate of ops outside the matrix unit that compute rather than move, in FLOP/s."""
    rates = [
        (s.cost.flops, s.cost.flops / s.seconds)
        for s in samples
        if s.cost.flops >= s.cost.bytes_read + s.cost.bytes_written
    ]
    most = max(flops for flops, _ in rates)
    return median(rate for flops, rate in rates if flops >= most / 10)


def plain_efficiency(samples: Sequence[Sample], chip: Chip) -> float:
    """What of a chip's peak the products reach that have no kernels of their own."""
    return min(median(s.cost.flops / s.seconds / chip.peak(s.cost.dtype).value for s in samples), 1)


def transport(machine: Machine, transfers: Sequence[Transfer], birth: Birth) -> Fit:
    """The parameters of the links of a machine of one level."""
    (level,) = machine.levels

    def predict(values: Values, which: Sequence[int]) -> list[float]:
        fit = Fit(values={name: birth.number(value) for name, value in values.items()})
        tried = replace(machine, levels=(replace(level, transport=fit),))
        return [_time_s(transfers[i], tried) for i in which]

    return birth.fit(fitted(predict, [each.seconds for each in transfers], LINKS, MOST))


def _time_s(each: Transfer, machine: Machine) -> float:
    return collective_time(
        each.collective, each.data_bytes, machine=machine, stride=1, size=each.size
    ).time_s
