"""Filling a cache with prompts, in chunks that carry as many rows as fit and no padding."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from circius.base.errors import ParamsError
from circius.model import RollingCache, Transformer

KeepGoing = Callable[[], bool]

OnPrefill = Callable[[int, int], None]
"""Called before the first chunk of the prompts and after each, with the tokens read so far and in all."""


def unheard(done: int, total: int) -> None:
    """For those who do not watch."""


def plan_chunks(lengths: Sequence[int], chunk_size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Cuts texts of these lengths into chunks of `chunk_size` tokens in all, as (text, begin, end) pieces.

    A short rest is filled up with the beginning of the next text, so no chunk but the last is smaller.

    >>> list(plan_chunks([5, 1, 4], 4))
    [[(0, 0, 4)], [(0, 4, 5), (1, 0, 1), (2, 0, 2)], [(2, 2, 4)]]
    """
    pieces: list[tuple[int, int, int]] = []
    room = chunk_size
    for text, length in enumerate(lengths):
        begin = 0
        while begin < length:
            end = min(length, begin + room)
            pieces.append((text, begin, end))
            room -= end - begin
            begin = end
            if room == 0:
                yield pieces
                pieces, room = [], chunk_size
    if pieces:
        yield pieces


def prefill(
    model: Transformer,
    cache: RollingCache,
    texts: Mapping[int, Sequence[int]],
    *,
    chunk_size: int,
    keep_going: KeepGoing = lambda: True,
    on_prefill: OnPrefill = unheard,
) -> dict[int, Tensor]:
    """Forwards the new token ids of each cache row in `texts`; the logits (V,) of each row's last token.

    Logits are computed only in the chunks in which a row ends. If `keep_going` says no between two chunks, the rows
    that had not ended are missing from the result.
    """
    rows = sorted(texts)
    last: dict[int, Tensor] = {}
    n_done, n_total = 0, sum(map(len, texts.values()))
    on_prefill(n_done, n_total)
    for pieces in plan_chunks([len(texts[row]) for row in rows], chunk_size):
        if not keep_going():
            break
        tokens = [token for text, begin, end in pieces for token in texts[rows[text]][begin:end]]
        ends = {place: rows[t] for place, (t, _, end) in enumerate(pieces) if end == len(texts[rows[t]])}
        logits = model(
            torch.tensor(tokens, device=model.device),
            [end - begin for _, begin, end in pieces],
            cache=cache,
            rows=[rows[text] for text, _, _ in pieces],
            logits="last" if ends else "none",
        )
        last |= {row: logits[place] for place, row in ends.items()}
        n_done += len(tokens)
        on_prefill(n_done, n_total)
    return last


def forward_chunks(
    model: Transformer, cache: RollingCache, row: int, tokens: Tensor, *, chunk_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Forwards `tokens` (T,) into one row; yields each chunk's begin and logits, at most (chunk_size, V)."""
    for begin in range(0, len(tokens), chunk_size):
        chunk = tokens[begin : begin + chunk_size]
        yield begin, model(chunk, [len(chunk)], cache=cache, rows=[row])


def check_chunk_size(chunk_size: int) -> None:
    """Refuses a chunk of no tokens.

    Raises:
        ParamsError: `chunk_size` is not a positive whole number.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ParamsError(f"chunk_size must be a whole number of tokens, 1 or more, got {chunk_size!r}")
