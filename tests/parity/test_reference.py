"""The one-file reference and the package say the same, and the reference runs by itself on a checkpoint folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from circius.model import RollingCache, Transformer, reference
from tests.models import random_model, random_tokens, tiny_config


def _reference(model: Transformer) -> reference.Model:
    c = model.config
    assert not isinstance(c.window_size, tuple)
    config = reference.Config(
        dim=c.dim, n_layers=c.n_layers, head_dim=c.head_dim, hidden_dim=c.hidden_dim, n_heads=c.n_heads,
        n_kv_heads=c.n_kv_heads, vocab_size=c.vocab_size, window_size=c.window_size, rope_theta=c.rope_theta,
        norm_eps=c.norm_eps,
    )  # fmt: skip
    return reference.Model(config, dict(model.state_dict()))


@pytest.mark.quick
@settings(max_examples=25, deadline=None)
@given(
    window=st.one_of(st.none(), st.integers(1, 9)),
    length=st.integers(1, 30),
    chunk=st.integers(1, 30),
    tied=st.booleans(),
)
def test_logits_equal(window: int | None, length: int, chunk: int, tied: bool) -> None:
    model = random_model(tiny_config(window=window, tied=tied))
    tokens = random_tokens(length)
    with torch.inference_mode():
        expected = _reference(model).prefill(tokens.tolist(), chunk)
        torch.testing.assert_close(model(tokens, [length]), expected, atol=1e-5, rtol=0)


def test_greedy_tokens_equal() -> None:
    model = random_model(tiny_config(window=5))
    prompt = random_tokens(12)
    with torch.inference_mode():
        expected = _reference(model).generate(prompt.tolist(), 20, chunk_size=7)
        cache = RollingCache(model.config, [32], dtype=torch.float32, device="cpu")
        made = [int(model(prompt, [12], cache=cache, logits="last").argmax())]
        while len(made) < 20:
            made.append(int(model(torch.tensor(made[-1:]), [1], cache=cache).argmax()))
    assert made == expected


def test_runs_by_itself_on_a_checkpoint_folder(tmp_path: Path) -> None:
    """As a file, in a process of its own, far from the package."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = random_model(tiny_config(window=5))
    c = model.config
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    fields = {
        "hidden_size": c.dim, "num_hidden_layers": c.n_layers, "head_dim": c.head_dim, "vocab_size": c.vocab_size,
        "intermediate_size": c.hidden_dim, "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_kv_heads,
        "sliding_window": c.window_size, "rope_theta": c.rope_theta, "rms_norm_eps": c.norm_eps,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(fields))
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(c.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    file = tmp_path / "reference.py"
    file.write_text(Path(reference.__file__).read_text())
    run = subprocess.run(
        [sys.executable, "-I", str(file), str(tmp_path), "w3 w4 w5", "--max-tokens", "4"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    with torch.inference_mode():
        expected = _reference(model).generate([3, 4, 5], 4)
    assert run.stdout.split() == [f"w{i}" for i in [3, 4, 5, *expected]]
