"""A closed loop of requests: how many decode at one time, and what prefills cost them.

Of so many requests that are out, those decode that have their first token. One that waits w for it
and gets n tokens in T each decodes n T / (w + n T) of the time, so as many decode as Little's law
says. Each token is followed by a share of the prefills of newcomers, one for every n tokens.

- Where prompts are in the same pass as the tokens of others, that pass is a prefill of so many more
  tokens, which reads all weights anyway, and the attention of those who decode. It takes no longer
  than both apart.
- Where they have a pass of their own all others stand still. Requests that are all alike then stay
  in step: each sees half of the others' prefills, those that come after its own. Between two of its
  first tokens a request sees the prefills of all, so one that waits less than half of them for its
  first token, as requests do that came one by one, waits for the rest after it.
- A host that schedules a step only when the last one is done keeps the chips waiting meanwhile, the
  longer the more requests there are.

**Source:** Little, "A Proof for the Queuing Formula L = λW", 1961; Agrawal et al., "Sarathi-Serve",
OSDI 2024, section 3 (stalls by prefills, and passes of both).
"""

from dataclasses import dataclass

from supernode.accuracy.case import Serving

IN_STEP = 0.5
"""The mean share of the prefills of others that come after one's own."""
NEAR = 0.95
"""A batch is not simulated anew if this part of the requests decode at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one token takes for all requests of a batch, and what of it is attention."""

    time_s: float
    attention_s: float

    def towards(self, other: "Pass", far: float) -> "Pass":
        """The straight line from this one (0) to another (1)."""
        return Pass(
            time_s=(1 - far) * self.time_s + far * other.time_s,
            attention_s=(1 - far) * self.attention_s + far * other.attention_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An output token: how much of a pass that decodes, of its attention, and of a prefill, and
    how long the chips wait for the host."""

    decode: float
    attention: float
    prompts: float
    host_s: float

    def time_s(self, decode: Pass, prompts_s: float) -> float:
        """How long it takes."""
        decoding_s = self.decode * decode.time_s + self.attention * decode.attention_s
        return decoding_s + self.prompts * prompts_s + self.host_s


def token(spec: Serving, batch: float, decode: Pass, prompts_s: float) -> Token:
    """What a token is made of where `batch` requests decode at one time."""
    host_s = batch * spec.host_s
    if spec.prompts is None:
        return Token(decode=1.0, attention=0.0, prompts=0.0, host_s=host_s)
    passes = batch / (spec.prompts.batch * spec.output)
    if not spec.mixed:
        share = _after_own(spec, prompts_s) if spec.together else 1.0
        return Token(decode=1.0, attention=0.0, prompts=share * passes, host_s=host_s)
    tokens = spec.prompts.batch * spec.prompts.sequence
    longer = 1 + batch / tokens
    pass_s = max(longer * prompts_s + decode.attention_s, decode.time_s)
    mixed = min(passes, 1.0)
    if pass_s > prompts_s + decode.time_s:
        return Token(decode=1.0, attention=0.0, prompts=mixed, host_s=host_s)
    if pass_s == decode.time_s:  # while it reads the weights for the others, it has time for them
        return Token(decode=1.0, attention=0.0, prompts=0.0, host_s=host_s)
    return Token(decode=1 - mixed, attention=mixed, prompts=mixed * longer, host_s=host_s)


def _after_own(spec: Serving, prompts_s: float) -> float:
    """The part of the prefills of all requests that a request sees after its first token."""
    if spec.prompts is None or not spec.wait_s:
        return IN_STEP
    all_s = spec.decode.batch / spec.prompts.batch * prompts_s
    return max(IN_STEP, 1 - spec.wait_s / all_s)


def decoding(spec: Serving, token_s: float, prompts_s: float) -> float:
    """How many of the requests decode, if a token takes so long.

    The pass of its own prompt is one of many for the others, so it is no time that a request is
    missed. Of those who stay in step, all decode once all are prefilled.
    """
    if spec.together and not spec.mixed:
        return spec.decode.batch
    busy_s = spec.output * token_s
    return spec.decode.batch * busy_s / (max(spec.wait_s - prompts_s, 0.0) + busy_s)


def settled(spec: Serving, few: float, at_few: Pass, at_all: Pass, prompts_s: float) -> float:
    """How many decode, given passes of `few` and of all requests; those between lie on a line."""
    batch, all_ = few, float(spec.decode.batch)
    for _ in range(20):
        at = at_few.towards(at_all, (batch - few) / (all_ - few))
        token_s = token(spec, batch, at, prompts_s).time_s(at, prompts_s)
        batch = decoding(spec, token_s, prompts_s)
    return batch
