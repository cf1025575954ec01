"""How long what is asked takes on a machine."""

from dataclasses import dataclass, replace

from supernode.machine import Machine
from supernode.ops import Scores
from supernode.plan import Mesh
from supernode.simulate.ask import Ask, Beside, Moving, Sending, What
from supernode.simulate.collective_time import collective_time
from supernode.simulate.comm.access import access_time
from supernode.simulate.comm.experts import experts_time
from supernode.simulate.op_time import op_time
from supernode.simulate.terms import Terms
from supernode.simulate.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """The prices of a machine, for a plan on `mesh`."""

    machine: Machine
    mesh: Mesh
    terms: Terms

    def of(self, ask: Ask) -> Timing:
        """The time that what is asked takes here."""
        return self._of(ask.what)

    def _of(self, what: What) -> Timing:
        chip = self.machine.chip
        if isinstance(what, Sending):
            sent = self._sent(replace(what, pieces=1))
            return sent.part(1 / what.pieces)
        if isinstance(what, Beside):
            return self._beside(what)
        if isinstance(what, Moving):
            return access_time(what.way, what.data_bytes, machine=self.machine, stride=what.stride)
        timing = op_time(what, chip, rows_factor=self.terms.imbalance)
        if isinstance(what.shape, Scores):
            timing = self.terms.by_generation(timing, chip)
        return self.terms.slowed(timing, chip, self.mesh.size, what.launches)

    def _beside(self, what: Beside) -> Timing:
        """A product, slowed by what goes on beside it, and no shorter than that."""
        alone = self._of(what.product)
        sent_s = sum(self._sent(each).time_s * (1 - 1 / each.size) for each in what.sendings)
        pace = self.terms.beside(self.machine.chip)
        left_s = max(alone.time_s - pace * sent_s, 0.0)
        share = self.machine.chip.comm_share
        return alone.longer(sent_s + left_s - alone.time_s, share.kind if share else "guessed")

    def _sent(self, what: Sending) -> Timing:
        timing = self._on_its_way(what)
        counted = what.rows and not what.back
        return self.terms.behind(timing, self.machine.chip) if counted else timing

    def _on_its_way(self, what: Sending) -> Timing:
        terms = self.terms
        # All wait for the chip that gets, or gives back, the most rows.
        data_bytes = what.data_bytes * (terms.imbalance if what.rows else 1.0)
        routed = what.rows and terms.copies > 0
        if what.way is not None or routed:
            back = what.back and not terms.once  # those of once were measured together
            return experts_time(
                what.way or ("combine" if back else "dispatch"),
                data_bytes * (terms.narrow if what.rows and not what.back else 1.0),
                copies=terms.copies if routed else what.copies,
                once=terms.once if routed else what.once,
                machine=self.machine,
                stride=what.stride,
                size=what.size,
            )
        return collective_time(
            what.collective,
            data_bytes,
            machine=self.machine,
            stride=what.stride,
            size=what.size,
            small_at_once=self.terms.small_at_once,
        )
