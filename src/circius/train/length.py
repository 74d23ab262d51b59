"""How long a run is, in steps, by walking through its stream without making a batch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from circius.train.config import RunConfig

_EXACT_EXAMPLES = 200_000
"""Up to so many examples all batches of a run are counted; beyond, the first thousand are taken for all."""
_SAMPLED_BATCHES = 1_000


class Walk(Protocol):
    """A stream, as far as it is needed here."""

    def next(self, n_batches: int, own: Sequence[int] | None = None) -> list[Any]: ...

    def state(self) -> dict[str, Any]: ...


class Length(NamedTuple):
    """tokens_per_step: on average; whole examples seldom fill a batch to its end."""

    n_steps: int
    tokens_per_step: float
    n_epochs: float


def measure_length(config: RunConfig, stream: Walk, mean_tokens: Mapping[str, float]) -> Length:
    """The length of a run over a new stream, which is used up by this.

    mean_tokens: of an example, by source. An epoch is as many examples as there are in all sources together.
    """
    n_examples = sum(source["n_examples"] for source in stream.state()["sources"])
    wanted = math.inf if config.n_epochs is None else math.ceil(config.n_epochs * n_examples)
    most = math.inf if wanted <= _EXACT_EXAMPLES else _SAMPLED_BATCHES
    n_batches, n_drawn = 0, 0
    while n_batches < most and n_drawn < wanted:
        stream.next(1, ())
        n_batches += 1
        n_drawn = stream.state()["n_drawn"]
    n_tokens = sum(
        (source["epoch"] * source["n_examples"] + source["place"]) * mean_tokens[source["name"]]
        for source in stream.state()["sources"]
    )
    tokens_per_step = config.n_batches * n_tokens / n_batches
    if config.n_steps is not None:
        n_steps = config.n_steps
    elif config.n_tokens is not None:
        n_steps = math.ceil(config.n_tokens / tokens_per_step)
    else:
        needed = n_batches if n_drawn >= wanted else n_batches * wanted / n_drawn
        n_steps = math.ceil(needed / config.n_batches)
    n_epochs = n_steps * config.n_batches / n_batches * n_drawn / n_examples
    return Length(n_steps, tokens_per_step, n_epochs)
