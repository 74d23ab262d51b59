"""Against transformers' MistralForCausalLM and LlamaForCausalLM, with the weights copied: logits, gradients, tokens."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from circius.base.config import ModelConfig
from circius.model import RollingCache, Transformer
from tests.models import random_model, random_tokens, tiny_config

WINDOW = 7


def _peer(config: ModelConfig, ours: Transformer) -> MistralForCausalLM | LlamaForCausalLM:
    shape = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_len,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_output,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attn_implementation": "eager",
    }
    if config.window_size is None:
        peer = LlamaForCausalLM(LlamaConfig(**shape))
    else:
        peer = MistralForCausalLM(MistralConfig(**shape, sliding_window=config.window_size))
    missing, unexpected = peer.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    assert missing == ([] if not config.tied_output else ["lm_head.weight"])
    peer.tie_weights()
    return peer.eval()


@pytest.mark.quick
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [*range(1, 3 * WINDOW + 1)])
def test_logits_equal_for_every_length_up_to_three_windows(length: int, n_kv_heads: int) -> None:
    config = tiny_config(window=WINDOW, n_kv_heads=n_kv_heads)
    ours = random_model(config)
    tokens = random_tokens(length)
    with torch.inference_mode():
        expected = _peer(config, ours)(tokens[None]).logits[0]
        torch.testing.assert_close(ours(tokens, [length]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("window", "tied"), [(None, True), (None, False), (WINDOW, True), (1, False), (64, False)])
def test_logits_equal_with_and_without_window_and_tie(window: int | None, tied: bool) -> None:
    config = tiny_config(window=window, tied=tied)
    ours = random_model(config)
    tokens = random_tokens(50)
    with torch.inference_mode():
        expected = _peer(config, ours)(tokens[None]).logits[0]
        torch.testing.assert_close(ours(tokens, [50]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_gradients_equal(length: int) -> None:
    config = tiny_config(window=WINDOW)
    ours = random_model(config)
    peer = _peer(config, ours)
    tokens, targets = random_tokens(length), random_tokens(length, seed=1)
    torch.nn.functional.cross_entropy(ours(tokens, [length]), targets).backward()
    torch.nn.functional.cross_entropy(peer(tokens[None]).logits[0], targets).backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("prompt_length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 3])
def test_greedy_tokens_equal_past_three_windows(prompt_length: int) -> None:
    """Ours decodes from the rolling buffer; the peer computes every step anew, without any cache."""
    config = tiny_config(window=WINDOW)
    ours = random_model(config)
    peer = _peer(config, ours)
    prompt = random_tokens(prompt_length)
    n_new = 3 * WINDOW + 4
    cache = RollingCache(config, [prompt_length + n_new], dtype=torch.float32, device="cpu")
    made: list[int] = []
    with torch.inference_mode():
        step = prompt
        for _ in range(n_new):
            logits = ours(step, [len(step)], cache=cache, logits="last")
            made.append(int(logits.argmax()))
            step = torch.tensor(made[-1:])
        sequence = prompt.tolist()
        for token in made:
            assert int(peer(torch.tensor([sequence])).logits[0, -1].argmax()) == token
            sequence.append(token)


def test_bf16_stays_as_near_to_float32_as_the_peer_does() -> None:
    """The order of casts (norm before weight, float32 rotation and softmax) costs no more than the peer's."""
    config = tiny_config(window=WINDOW)
    ours = random_model(config)
    tokens = random_tokens(40)
    with torch.inference_mode():
        exact = ours(tokens, [40])
        peer = _peer(config, ours).to(torch.bfloat16)
        theirs = (peer(tokens[None]).logits[0].float() - exact).square().mean().sqrt()
        mine = (ours.to(torch.bfloat16)(tokens, [40]) - exact).square().mean().sqrt()
    assert 0 < mine < 1.25 * theirs
