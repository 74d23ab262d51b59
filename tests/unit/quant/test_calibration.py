"""What the calibration sees is what the whole model would compute."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from circius.base.errors import PromptError
from circius.model.layers import Block
from circius.quant.calibration import Calibration, excerpts
from circius.text import load_tokenizer, write_byte_tokenizer
from circius.text.tokenizer import Tokenizer
from tests.models import random_model, random_tokens, tiny_config


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_byte_tokenizer(tmp_path)
    return load_tokenizer(tmp_path)


@torch.no_grad()
def test_products_and_states_are_those_of_the_whole_model() -> None:
    """Rows of unequal lengths, longer than the window."""
    model = random_model(tiny_config(window=(5, None), n_layers=2))
    rows = [random_tokens(n, seed=n) for n in (9, 30, 30, 17)]
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0]))
    model(torch.cat(rows), [len(row) for row in rows])
    expected = {name: torch.cat(inputs) for name, inputs in seen.items()}

    states = Calibration(model.config, [model.model.embed_tokens(row) for row in rows])
    for layer, block in enumerate(model.model.layers):
        assert isinstance(block, Block)
        for member, linear in block.named_modules():
            if isinstance(linear, nn.Linear):
                x = expected[f"model.layers.{layer}.{member}"]
                torch.testing.assert_close(states.products(block, layer, linear).tril(), (x.T @ x).tril())
        states.advance(block, layer)


def test_excerpts_are_spread_over_the_text(tokenizer: Tokenizer) -> None:
    text = "".join(f"{number:04d}." for number in range(2_000))
    rows = excerpts(tokenizer, text, n_tokens=320, row_tokens=64)
    assert [len(row) for row in rows] == [64] * 5
    assert all(row[0] == tokenizer.bos_id for row in rows)
    assert [tokenizer.decode(row[1:6]) for row in rows] == ["0000.", "0400.", "0800.", "1200.", "1600."]


def test_a_text_of_few_excerpts(tokenizer: Tokenizer) -> None:
    assert [len(row) for row in excerpts(tokenizer, "a" * 700, n_tokens=1_000, row_tokens=64)] == [64, 64]
    assert [len(row) for row in excerpts(tokenizer, "a" * 700, n_tokens=20, row_tokens=64)] == [20]
    with pytest.raises(PromptError, match="has 300 characters: give some 5000 or more"):
        excerpts(tokenizer, "a" * 300, n_tokens=1_000, row_tokens=64)
