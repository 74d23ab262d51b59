"""Log-probabilities of tokens, and of the most likely ones beside them, in the model's own distribution."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circius.engine.outputs import Logprob, Logprobs

NameToken = Callable[[int], str]
"""The text of one token alone."""


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """The natural log-probabilities (N,) of `tokens` (N,) under `logits` (N, V), in float32."""
    return -torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")


def describe(
    logits: Tensor,
    tokens: Tensor,
    n_top: Sequence[int],
    name_token: NameToken | None,
    named: Sequence[Sequence[int]] | None = None,
) -> list[Logprobs]:
    """For each of N places: the token that stands there, then the `n_top` likeliest, or those that are `named`.

    logits: (N, V), as the model gave them. tokens: (N,). n_top: N counts, 0 for the token alone. named: for each place
    the tokens that are wanted whatever their rank; where there are some, the likeliest are left out.
    """
    largest = min(max(n_top), logits.shape[-1])
    logprobs = logits.float().log_softmax(dim=-1)
    own = logprobs.gather(-1, tokens[:, None])
    ranks = (logprobs > own).sum(dim=-1) + 1
    values, ids = logprobs.topk(largest, dim=-1)
    top_ranks = (values[:, None, :] > values[:, :, None]).sum(dim=-1) + 1

    def entry(logprob: float, rank: int, token: int) -> Logprob:
        return Logprob(logprob, rank, name_token(token) if name_token else None)

    places = zip(
        tokens.tolist(), own[:, 0].tolist(), ranks.tolist(), ids.tolist(), values.tolist(), top_ranks.tolist(),
        n_top, strict=True,
    )  # fmt: skip
    described: list[Logprobs] = [
        {token: entry(logprob, rank, token)}
        | {i: entry(v, r, i) for i, v, r in list(zip(top, at, rank_list, strict=True))[:n]}
        for token, logprob, rank, top, at, rank_list, n in places
    ]
    for place, ids_here in enumerate(named or ()):
        if ids_here:
            found = logprobs[place, torch.tensor(ids_here, device=logprobs.device)]
            ranks_here = ((logprobs[place] > found[:, None]).sum(dim=-1) + 1).tolist()
            own_token = next(iter(described[place]))
            described[place] = {own_token: described[place][own_token]} | {
                i: entry(v, r, i) for i, v, r in zip(ids_here, found.tolist(), ranks_here, strict=True)
            }
    return described
