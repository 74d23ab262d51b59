"""Learning from preferences without a reward model (DPO, arXiv 2305.18290): the numbers.

Two answers to one prompt stand next to each other in a batch, the chosen one first. What counts is by how much the
policy has moved its log-probabilities away from those of a reference, which is the model that training began with.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.base.errors import ConfigError, InvalidInputError
from circius.model import Transformer
from circius.train.batch import IGNORED, Batch
from circius.train.example import Example
from circius.train.forward import output_matrix
from circius.train.loss import token_nll

Kind = Literal["sigmoid", "ipo", "hinge"]
Pair = tuple[Example, Example]
"""The chosen answer and the rejected one, each behind the prompt, of which nothing is learnt."""


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """kind: of the margin m, by how much more the policy prefers the chosen answer than the reference does, "sigmoid"
        takes -log sigmoid(beta m) (DPO), "ipo" (m - 1 / (2 beta))^2 (arXiv 2310.12036), "hinge" max(0, 1 - beta m)
        (arXiv 2305.10425).
    label_smoothing: of "sigmoid": the share of pairs that are thought to be the wrong way round.
    is_mean: whether an answer's log-probability is the mean over its tokens and not their sum.

    Raises:
        ConfigError: a value outside its range, or one that the kind has no use for.
    """

    kind: Kind = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    is_mean: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"a preference loss is {', '.join(get_args(Kind))}, got {self.kind!r}")
        if not 0 < self.beta < math.inf:
            raise ConfigError(f"beta must be above 0, got {self.beta!r}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing!r}")
        if self.label_smoothing and self.kind != "sigmoid":
            raise ConfigError(f"label_smoothing is for the sigmoid loss; {self.kind} has no use for it")


class Preference(NamedTuple):
    """Sums over `n_pairs`, like `Loss`: divide by the pairs of the whole step.

    total: (), what gradients are taken of. chosen, rejected: (), the rewards, beta times what the policy has moved.
    n_right: (), of how many pairs the chosen answer has the higher reward.
    """

    total: Tensor
    n_pairs: int
    chosen: Tensor
    rejected: Tensor
    n_right: Tensor

    @property
    def margin(self) -> Tensor:
        """(), the rewards' difference."""
        return self.chosen - self.rejected


def preference_loss(
    policy: Tensor, reference: Tensor, config: PreferenceConfig, *, n_tokens: Tensor | None = None
) -> Preference:
    """The loss of pairs whose answers have the summed log-probabilities `policy` and `reference`, (pairs, 2) each.

    n_tokens: (pairs, 2), how many tokens were summed; needed for `config.is_mean`.

    Raises:
        InvalidInputError: shapes that do not fit together, or no numbers of tokens where they are needed.
    """
    if policy.ndim != 2 or policy.shape[1] != 2 or reference.shape != policy.shape:
        raise InvalidInputError(
            f"a preference loss takes log-probabilities (pairs, 2) of policy and reference, got {tuple(policy.shape)} "
            f"and {tuple(reference.shape)}"
        )
    moved = policy - reference
    if config.is_mean:
        if n_tokens is None or n_tokens.shape != policy.shape:
            raise InvalidInputError("means need the number of tokens (pairs, 2) of each answer")
        moved = moved / n_tokens
    margin = moved[:, 0] - moved[:, 1]
    rewards = config.beta * moved.detach()
    return Preference(
        total=_losses(margin, config).sum(),
        n_pairs=len(policy),
        chosen=rewards[:, 0].sum(),
        rejected=rewards[:, 1].sum(),
        n_right=(rewards[:, 0] > rewards[:, 1]).sum(),
    )


def _losses(margin: Tensor, config: PreferenceConfig) -> Tensor:
    if config.kind == "ipo":
        return (margin - 1 / (2 * config.beta)).square()
    if config.kind == "hinge":
        return torch.relu(1 - config.beta * margin)
    right, wrong = (-F.logsigmoid(sign * config.beta * margin) for sign in (1, -1))
    return (1 - config.label_smoothing) * right + config.label_smoothing * wrong


def answer_log_probs(model: Transformer, batch: Batch) -> Tensor:
    """(rows,) float32: the log-probabilities of each row's learnt tokens, summed; differentiable.

    Raises:
        InvalidInputError: as `token_nll`.
    """
    nll = token_nll(model.hidden(batch.tokens, batch.lengths), output_matrix(model), batch.targets)
    return -torch.stack([part.sum() for part in torch.split(nll, batch.lengths)])


def pair_log_probs(model: Transformer, batch: Batch) -> Tensor:
    """(pairs, 2): those of a batch whose rows are chosen, rejected, chosen, rejected, ..."""
    return answer_log_probs(model, batch).view(-1, 2)


def answer_lengths(batch: Batch) -> Tensor:
    """(pairs, 2): how many tokens each answer's log-probability is a sum over."""
    parts = torch.split(batch.targets != IGNORED, batch.lengths)
    return torch.stack([part.sum() for part in parts]).view(-1, 2)


def pair_batch(pairs: Sequence[Pair], *, first: int = 0) -> Batch:
    """Pairs side by side, chosen before rejected. first: how messages count the first of them.

    Raises:
        InvalidInputError: an answer has nothing to learn, so that it would say nothing of a preference.
    """
    for index, pair in enumerate(pairs, first):
        for name, example in zip(("chosen", "rejected"), pair, strict=True):
            if not example.n_learnt:
                raise InvalidInputError(
                    f"the {name} answer of pair {index} has no token that is learnt: was it cut off, or is it empty?"
                )
    return Batch.of([example for pair in pairs for example in pair])


def pair_batches(pairs: Iterable[Pair], n_tokens: int) -> Iterable[Batch]:
    """Batches of up to `n_tokens`, in order; a pair that is longer is a batch of its own."""
    waiting: list[Pair] = []
    for index, pair in enumerate(pairs):
        if waiting and sum(len(example) for own in (*waiting, pair) for example in own) > n_tokens:
            yield pair_batch(waiting, first=index - len(waiting))
            waiting = []
        waiting.append(pair)
    if waiting:
        yield pair_batch(waiting, first=index + 1 - len(waiting))
