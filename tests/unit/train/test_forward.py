"""A batch's loss is what the model's logits say, and blocks that are computed twice say the same to the bit."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.model import Transformer
from circius.train.batch import IGNORED, Batch
from circius.train.forward import batch_loss, output_matrix, recompute_blocks
from circius.weights.packed import unpacked
from tests.models import random_model, random_tokens, tiny_config
from tests.packed import packable_config, packed_model


def _batch(lengths: list[int], seed: int = 0) -> Batch:
    tokens = random_tokens(sum(lengths), seed=seed)
    targets = random_tokens(sum(lengths), seed=seed + 1)
    targets[torch.rand(len(targets), generator=torch.Generator().manual_seed(seed)) < 0.3] = IGNORED
    return Batch(tokens, lengths, targets)


def _gradients(model: Transformer, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    batch_loss(model, batch).total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _kept_bytes(function: Callable[[], Tensor]) -> int:
    """Of all that autograd keeps, each piece of memory once."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        function()
    return sum(kept.values())


@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_is_that_of_the_logits(tied: bool) -> None:
    model, batch = random_model(tiny_config(tied=tied)), _batch([17, 1, 30])
    found = batch_loss(model, batch)
    logits = model(batch.tokens, batch.lengths)
    expected = F.cross_entropy(logits, batch.targets, reduction="sum", ignore_index=IGNORED)
    torch.testing.assert_close(found.total, expected)
    assert found.n_tokens == batch.n_learnt


def test_packing_changes_nothing() -> None:
    """The loss of examples side by side is the sum of their losses, the gradients too."""
    model, batch = random_model(tiny_config()), _batch([17, 1, 30, 30])
    together, total = _gradients(model, batch), batch_loss(model, batch).total.detach()
    apart = [
        Batch(tokens, [len(tokens)], targets)
        for tokens, targets in zip(batch.tokens.split(batch.lengths), batch.targets.split(batch.lengths), strict=True)
    ]
    model.zero_grad()
    torch.testing.assert_close(sum(batch_loss(model, one).total.detach() for one in apart), total)
    for one in apart:
        batch_loss(model, one).total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, together[name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("window", [5, None, (5, None)])
def test_recomputing_says_the_same_to_the_bit_and_keeps_less(window: int | tuple[int | None, ...] | None) -> None:
    model, batch = random_model(tiny_config(window=window)), _batch([40, 25])
    plain = _gradients(model, batch)
    bytes_plain = _kept_bytes(lambda: batch_loss(model, batch).total)
    recompute_blocks(model)
    again = _gradients(model, batch)
    assert plain.keys() == again.keys()
    assert all(plain[name].equal(again[name]) for name in plain)
    bytes_again = _kept_bytes(lambda: batch_loss(model, batch).total)
    assert bytes_again < bytes_plain / 2
    recompute_blocks(model, on=False)
    assert _kept_bytes(lambda: batch_loss(model, batch).total) == bytes_plain


@pytest.mark.parametrize("tiles", [1, 3, 64])
def test_the_output_of_a_packed_model_is_unpacked(tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circius.train.forward._TILES_AT_ONCE", tiles)
    model = packed_model(packable_config())
    expected = unpacked(model.lm_head.weight.matrix, torch.float32)  # type: ignore[union-attr]
    assert output_matrix(model).equal(expected)
    batch = _batch([20, 5])
    model.set_activations("float")
    logits = model(batch.tokens, batch.lengths)
    found = batch_loss(model, batch)
    torch.testing.assert_close(
        found.total, F.cross_entropy(logits, batch.targets, reduction="sum", ignore_index=IGNORED)
    )
