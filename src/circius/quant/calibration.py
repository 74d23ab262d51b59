"""What the layers of a model are fed: some texts on their way through it, one block in memory at a time."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from circius.base.config import ModelConfig
from circius.base.errors import PromptError
from circius.model.layers import Block
from circius.model.rope import Rotation, rotation_at
from circius.model.step import FreshStep
from circius.quant.gptq import add_products
from circius.text import Tokenizer

ROW_TOKENS = 512
"""The tokens of one excerpt, unless the model's context is shorter."""
_TOKENS_AT_ONCE = 2048
_CHARS_A_TOKEN = 5  # enough of most texts; an excerpt that has fewer tokens is used as it is


class _Rows(NamedTuple):
    """The hidden states of some excerpts, one after the other, and what their forwards need."""

    hidden: Tensor
    rotation: Rotation
    step: FreshStep


class Calibration:
    """The hidden states of the calibration's excerpts between two blocks, in float32."""

    def __init__(self, config: ModelConfig, rows: Sequence[Tensor]) -> None:
        """rows: the embedded tokens of each excerpt, (tokens, E)."""
        at_once = max(1, _TOKENS_AT_ONCE // max(map(len, rows)))
        self._rows = [_prepared(config, rows[begin : begin + at_once]) for begin in range(0, len(rows), at_once)]

    def products(self, block: Block, layer: int, linear: nn.Linear) -> Tensor:
        """The sum of x x^T over what `linear` is fed, (inputs, inputs), as `add_products` leaves it.

        The block runs only as far as that: what comes after has no say.
        """
        sums = torch.zeros(linear.in_features, linear.in_features)

        def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            add_products(sums, inputs[0])
            raise _Enough

        hook = linear.register_forward_pre_hook(take)
        try:
            for rows in self._rows:
                try:
                    _forward(block, layer, rows)
                except _Enough:
                    continue
        finally:
            hook.remove()
        return sums

    def advance(self, block: Block, layer: int) -> None:
        """Takes the hidden states through the block, as it is by now."""
        for rows in self._rows:
            rows.hidden.copy_(_forward(block, layer, rows))


class _Enough(Exception):  # noqa: N818 - it is no error
    """A block ran as far as it had to."""


def _prepared(config: ModelConfig, part: Sequence[Tensor]) -> _Rows:
    step = FreshStep(config, [len(row) for row in part], part[0].device)
    rotation = rotation_at(step.positions, head_dim=config.head_dim, theta=config.rope_theta)
    return _Rows(torch.cat([*part]), rotation, step)


def _forward(block: Block, layer: int, rows: _Rows) -> Tensor:
    out: Tensor = block(rows.hidden, rows.rotation, partial(rows.step.attend, layer))
    return out


def excerpts(tokenizer: Tokenizer, text: str, *, n_tokens: int, row_tokens: int) -> list[list[int]]:
    """Token ids of excerpts spread evenly over a text, about `n_tokens` in all, each of at most `row_tokens`.

    Raises:
        PromptError: the text is too short for one whole excerpt.
    """
    start = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    row_tokens = min(row_tokens, n_tokens)
    n_rows = min(-(-n_tokens // row_tokens), len(text) // (_CHARS_A_TOKEN * row_tokens))
    if n_rows < 1:
        raise PromptError(
            f"the calibration text has {len(text)} characters: give some {_CHARS_A_TOKEN * n_tokens} or more, of the "
            "kind that the model will be used for"
        )
    stride = len(text) // n_rows
    length = min(stride, 4 * _CHARS_A_TOKEN * row_tokens)
    rows = (tokenizer.encode(text[begin : begin + length]) for begin in range(0, n_rows * stride, stride))
    return [[*start, *ids][:row_tokens] for ids in rows]
