"""The demo model, a real trained GGUF: our logits equal those of transformers' own loading of the same file."""

import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from circius.model import RollingCache
from circius.text import load_tokenizer
from circius.weights import load_model

TEXT = "The mistral is a strong, cold wind that blows from the north-west down the valley of the Rhône. " * 3


@pytest.fixture(scope="module")
def peer(demo_gguf: Path) -> LlamaForCausalLM:
    logging.disable(logging.WARNING)
    model = AutoModelForCausalLM.from_pretrained(
        demo_gguf.parent, gguf_file=demo_gguf.name, dtype=torch.float32, attn_implementation="eager"
    )
    logging.disable(logging.NOTSET)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


def test_every_weight_is_equal(demo_gguf: Path, peer: LlamaForCausalLM) -> None:
    ours, theirs = load_model(demo_gguf, dtype=torch.float32).state_dict(), peer.state_dict()
    theirs.pop("lm_head.weight")  # tied
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_logits_equal_whole_and_in_chunks(demo_gguf: Path, peer: LlamaForCausalLM) -> None:
    model = load_model(demo_gguf, dtype=torch.float32)
    tokens = torch.tensor(load_tokenizer(demo_gguf).encode(TEXT))
    with torch.inference_mode():
        expected = peer(tokens[None]).logits[0].log_softmax(-1)
        whole = model(tokens, [len(tokens)]).log_softmax(-1)
        cache = RollingCache(model.config, [len(tokens)], dtype=model.dtype, device="cpu")
        parts = torch.cat([model(part, [len(part)], cache=cache) for part in tokens.split(17)]).log_softmax(-1)
    # Thirty layers in float32, summed in different orders: what is left is rounding, far below any token's choice.
    torch.testing.assert_close(whole, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(parts, whole, atol=2e-4, rtol=0)
    assert torch.equal(whole.argmax(-1), expected.argmax(-1))
