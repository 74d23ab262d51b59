"""Perplexity by the protocol of llama.cpp's tool, whose figures are the ones that people quote.

The text is encoded whole, with BOS in front, and cut into pieces of `context` tokens that stand for themselves; the
first token of each gives way to BOS. Only the second half of each piece is scored, so that every scored token has seen
half a context or more. A rest that does not fill a piece is left out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from circius.base.errors import PromptError
from circius.engine.llm import LLM
from circius.engine.logprobs import token_logprobs
from circius.engine.prefill import forward_chunks
from circius.model import RollingCache

OnDone = Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True)
class PieceScore:
    """n_pieces: scored, of n_all in the text."""

    perplexity: float
    n_tokens: int
    n_pieces: int
    n_all: int


@torch.inference_mode()
def half_context_perplexity(
    llm: LLM,
    text: str,
    *,
    context: int = 512,
    n_pieces: int | None = None,
    on_done: OnDone = lambda done, total: None,
) -> PieceScore:
    """The perplexity of a text, or of its first `n_pieces`.

    Raises:
        PromptError: no tokenizer, or a text that does not fill one piece.
    """
    if llm.tokenizer is None:
        raise PromptError("this model came without a tokenizer: a text cannot be scored")
    bos = llm.tokenizer.bos_id if llm.tokenizer.adds_bos else None
    ids = llm.tokenizer.encode(text, bos=bos is not None)
    n_all = len(ids) // context
    if not n_all:
        raise PromptError(f"the text has {len(ids)} tokens, and one piece has {context}: give a longer text")
    n = n_all if n_pieces is None else min(n_pieces, n_all)
    total, n_tokens = 0.0, 0
    for place in range(n):
        piece = ids[place * context : (place + 1) * context]
        logprobs = _second_half(llm, piece if bos is None else [bos, *piece[1:]])
        total, n_tokens = total - sum(logprobs), n_tokens + len(logprobs)
        on_done(place + 1, n)
    return PieceScore(perplexity=math.exp(total / n_tokens), n_tokens=n_tokens, n_pieces=n, n_all=n_all)


def _second_half(llm: LLM, piece: Sequence[int]) -> list[float]:
    """The log-probabilities of the tokens behind the middle one, each given all before it."""
    model, first = llm.model, len(piece) // 2
    tokens = torch.tensor(piece, device=model.device)
    cache = RollingCache(model.config, [len(piece)], dtype=model.cache_dtype, device=model.device)
    found: list[float] = []
    for begin, logits in forward_chunks(model, cache, 0, tokens[:-1], chunk_size=llm.limits.chunk_size):
        skipped = min(max(first - begin, 0), len(logits))
        following = tokens[begin + 1 + skipped : begin + 1 + len(logits)]
        if len(following):
            found += token_logprobs(logits[skipped:], following).cpu().double().tolist()
    return found
