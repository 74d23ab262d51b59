"""Examples side by side: whole ones, next-fit, never padded."""

from collections.abc import Iterator

from circius.base.errors import InvalidInputError
from circius.train.batch import Batch
from circius.train.source import Source


def check_fits(source: Source, batch_tokens: int) -> None:
    """Does nothing if every example of a source goes into a batch.

    Raises:
        InvalidInputError: one does not, or there are none; the error names it.
    """
    if not len(source):
        raise InvalidInputError(f"{source.name}: no examples to draw from")
    longest = max(range(len(source)), key=source.n_tokens)
    if source.n_tokens(longest) > batch_tokens:
        raise InvalidInputError(
            f"{source.name}: example {longest} has {source.n_tokens(longest)} tokens, more than the {batch_tokens} of "
            "a batch: raise batch_tokens, or cut the examples (seq_len)"
        )


def each_once(source: Source, batch_tokens: int) -> Iterator[Batch]:
    """All examples of a source in their order, packed into batches of at most that many tokens: for an evaluation.

    Raises:
        InvalidInputError: an example is too long for a batch, or there are none.
    """
    for own in groups_that_fit(source, batch_tokens):
        yield Batch.of([source.example(index) for index in own])


def groups_that_fit(source: Source, batch_tokens: int) -> Iterator[list[int]]:
    """The examples of a source by their number, in their order, as many together as go into a batch.

    Raises:
        InvalidInputError: an example is too long for a batch, or there are none.
    """
    check_fits(source, batch_tokens)
    begun: list[int] = []
    room = batch_tokens
    for index in range(len(source)):
        room -= source.n_tokens(index)
        if room < 0:
            yield begun
            begun, room = [], batch_tokens - source.n_tokens(index)
        begun.append(index)
    yield begun
