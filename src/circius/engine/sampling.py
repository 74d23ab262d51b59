"""What picking tokens means, whether `host_sampler` does it, row by row on the CPU, or `device_sampler`, in batches.

The order is vLLM's: logit bias, penalties, min_tokens; the argmax of that is the greedy token. Then the temperature,
min_p, top_k, top_p, and a draw by inverting the cumulative distribution in token order, with a uniform number from the
row's own generator. That generator is Python's (Mersenne twister, seeded by the text "seed/answer"), so a row's
numbers depend neither on its neighbours nor on the device nor on torch's version; the same seed gives the same tokens
as long as the logits agree to the last few bits, which decide only where a number falls on a border.

A drafted token is accepted if it is the token that is drawn at its place, with the place's own uniform number. So the
tokens are those of a text made without drafts, not only their distribution, and a token of probability p is accepted
with probability p, which is all that rejection sampling could reach for a draft without a distribution of its own.
"""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from circius.engine.params import SamplingParams
from circius.engine.structured import Constraint

BAD_ROW = -1
"""What stands for the token of a row without a single finite logit, or with NaN among them."""


@dataclass(frozen=True)
class SamplerRow:
    """What the sampler must know of one row: `end_ids` must not be drawn before `params.min_tokens`."""

    params: SamplingParams
    prompt_ids: Sequence[int]
    end_ids: frozenset[int] = frozenset()
    answer: int = 0
    """Which of the n answers this is; each has numbers of its own."""
    constraint: Constraint | None = None
    """Which tokens the form of the answer allows."""

    def generator(self) -> random.Random:
        """The row's uniform numbers, from the first token on."""
        seed = self.params.seed if self.params.seed is not None else secrets.randbits(64)
        return random.Random(f"{seed}/{self.answer}")


class Sampler(Protocol):
    """Draws the next tokens of each row of a batch, step after step."""

    def __call__(self, logits: Tensor, drafts: Sequence[Sequence[int]]) -> list[list[int]]:
        """For each row as much of its draft as is drawn there, and the token drawn behind that: one at least.

        logits: (N, V), not changed: for each row those behind its last token, then those behind each drafted one.
        drafts: one for each row, empty if nothing was drafted. The last token of a row can be `BAD_ROW`.
        """
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows only; `places` are ascending places in the current batch."""
        ...


def why_bad(logits: Tensor, place: int) -> str:
    """What to say of logits (V,) at that place of an answer for which a sampler gave `BAD_ROW`."""
    if bool(logits.isfinite().all()):
        return (
            f"no token is allowed at place {place} of the answer: logit_bias, min_tokens or the format that was asked "
            "for forbids all of them"
        )
    return (
        f"the model's output at place {place} of the answer is not finite (NaN or infinity): the weights are damaged, "
        "or the numbers overflow in this dtype; try --dtype float32 or bfloat16"
    )
