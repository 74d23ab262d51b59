"""Training examples without end, packed into batches, the same for any number of processes and after any stop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circius.base.errors import InvalidInputError
from circius.train.batch import Batch
from circius.train.order import permutation
from circius.train.packing import check_fits
from circius.train.source import Source


class Stream:
    """Examples drawn from sources by weight, whole, next-fit into batches of at most `batch_tokens` tokens.

    Which source is drawn next is the one that is furthest behind its weight; so after any number of draws each has had
    its share to within one example a source. A source is walked in an order that depends on the seed and on how often
    it has been walked, every example once before any comes again.

    weights: how often each source is drawn, relative to the others; by default its number of examples, so that all of
        them are walked equally often.

    Raises:
        InvalidInputError: no sources, two of one name, weights that do not fit, or an example too long for a batch.
    """

    def __init__(
        self, sources: Sequence[Source], *, weights: Sequence[float] | None = None, batch_tokens: int, seed: int = 0
    ) -> None:
        names = [source.name for source in sources]
        if not sources or len(set(names)) < len(names):
            raise InvalidInputError(f"a stream needs one source or more, no two of one name, got {names}")
        for source in sources:
            check_fits(source, batch_tokens)
        self._sources = list(sources)
        self.batch_tokens = batch_tokens
        self.seed = seed
        self._shares = _shares([len(source) for source in sources] if weights is None else weights, names)
        self._drawn = [0] * len(sources)
        self._orders: list[tuple[int, NDArray[np.int64]]] = [(-1, np.empty(0, np.int64))] * len(sources)

    def next(self, n_batches: int, own: Sequence[int] | None = None) -> list[Batch]:
        """Walks past the next `n_batches` batches and makes those numbered `own` among them (all, if it is not given).

        Raises:
            InvalidInputError: `own` names a batch that is not among them.
        """
        own = range(n_batches) if own is None else own
        if not all(0 <= number < n_batches for number in own):
            raise InvalidInputError(f"own batches must be from 0 to {n_batches - 1}, got {list(own)}")
        drawn = [self._next_batch() for _ in range(n_batches)]
        return [Batch.of([self._sources[source].example(index) for source, index in drawn[number]]) for number in own]

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source has been walked so far."""
        return {source.name: n_drawn / len(source) for source, n_drawn in zip(self._sources, self._drawn, strict=True)}

    def state(self) -> dict[str, Any]:
        """Where the stream is, as a small JSON record; it goes into every checkpoint."""
        return {
            "seed": self.seed,
            "n_drawn": sum(self._drawn),
            "sources": [
                {
                    "name": source.name,
                    "n_examples": len(source),
                    "share": share,
                    "epoch": n_drawn // len(source),
                    "place": n_drawn % len(source),
                }
                for source, share, n_drawn in zip(self._sources, self._shares, self._drawn, strict=True)
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to where another stream of the same sources, weights and seed was; `batch_tokens` may be another.

        Raises:
            InvalidInputError: the state is of other data, another mixture or another seed; nothing has changed then.
        """
        fresh = self.state()
        for key in ("name", "n_examples", "share"):
            theirs, ours = ([one[key] for one in record["sources"]] for record in (state, fresh))
            if theirs != ours:
                raise InvalidInputError(
                    f"the state is of sources with {key} {theirs}, this stream has {ours}: go on with the data that "
                    "the run began with, or begin a new run"
                )
        if state["seed"] != self.seed:
            raise InvalidInputError(f"the state is of a stream with seed {state['seed']}, this one has {self.seed}")
        self._drawn = [one["epoch"] * one["n_examples"] + one["place"] for one in state["sources"]]

    def _next_batch(self) -> list[tuple[int, int]]:
        """The examples of the next batch, each as its source and its place in it."""
        batch: list[tuple[int, int]] = []
        room = self.batch_tokens
        while True:
            source = self._next_source()
            index = self._next_index(source)
            room -= self._sources[source].n_tokens(index)
            if room < 0:
                return batch  # the example was not drawn, and so begins the next batch
            batch.append((source, index))
            self._drawn[source] += 1

    def _next_source(self) -> int:
        n_next = sum(self._drawn) + 1
        behind = [share * n_next - n_drawn for share, n_drawn in zip(self._shares, self._drawn, strict=True)]
        return behind.index(max(behind))

    def _next_index(self, source: int) -> int:
        n_examples = len(self._sources[source])
        epoch, place = divmod(self._drawn[source], n_examples)
        if self._orders[source][0] != epoch:
            self._orders[source] = epoch, permutation(n_examples, self.seed, source, epoch)
        return int(self._orders[source][1][place])


def _shares(weights: Sequence[float], names: Sequence[str]) -> list[float]:
    if len(weights) != len(names) or not all(0 < weight < float("inf") for weight in weights):
        raise InvalidInputError(
            f"weights must be one positive number for each of the sources {list(names)}, got {list(weights)}: leave a "
            "source out instead of giving it 0"
        )
    total = sum(weights)
    return [weight / total for weight in weights]
