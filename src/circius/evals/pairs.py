"""From a context and its continuation to tokens, by the rule that everybody compares with. No torch here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circius.base.errors import InvalidInputError

Encode = Callable[[str], Sequence[int]]
"""The tokens of a text as a prompt begins: with BOS in front, if the model is used to one."""


@dataclass(frozen=True)
class Pair:
    """A context of at least one token, the continuation whose likelihood is asked for, and the tokens that were cut."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    n_cut: int = 0


def encode_pair(encode: Encode, context: str, continuation: str, *, start: int | None) -> Pair:
    """The tokens of a pair: those of both together, less as many as the context alone has.

    White space at the end of the context goes to the continuation first, as tokens begin with their space. Where the
    context has no token at all, `start` stands for it.

    Raises:
        InvalidInputError: the continuation has no token of its own, or there is nothing to start from.
    """
    bare = context.rstrip()
    known = list(encode(bare))
    whole = list(encode(context + continuation))
    own = whole[len(known) :]
    if not own:
        raise InvalidInputError(
            f"the continuation {continuation!r:.60} adds no token to its context, which ends in {context[-40:]!r}: "
            "its likelihood cannot be told"
        )
    if not known:
        if start is None:
            raise InvalidInputError(
                "the context is empty, and the tokenizer has no token that a text starts with: give some context"
            )
        known = [start]
    return Pair(tuple(known), tuple(own))


def fitted(pair: Pair, most: int, *, has_bos: bool) -> Pair:
    """The pair with at most `most` tokens; what is too much leaves the context after its BOS.

    >>> fitted(Pair((1, 10, 11, 12), (20, 21)), 4, has_bos=True)
    Pair(context=(1, 12), continuation=(20, 21), n_cut=2)

    Raises:
        InvalidInputError: the continuation alone is too long.
    """
    n_cut = len(pair.context) + len(pair.continuation) - most
    if n_cut <= 0:
        return pair
    head = pair.context[: int(has_bos)]
    tail = pair.context[len(head) + n_cut :]
    if not head + tail or len(head) + len(tail) + len(pair.continuation) > most:
        raise InvalidInputError(
            f"a continuation of {len(pair.continuation)} tokens does not fit into the context of {most}: give a larger "
            "--context"
        )
    return Pair(head + tail, pair.continuation, n_cut)
