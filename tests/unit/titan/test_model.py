"""The model that torchtitan gets, against ours: names, shapes, and logits in sequences longer than the window."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchtitan.trainer", reason="the plug-in for torchtitan is tested where torchtitan 0.3.0 is")

from torchtitan.models.common import attention

from circius.base.config import ModelConfig
from circius.base.errors import ConfigError
from circius.model import Transformer
from circius.model.window import visible
from circius.titan import FLAVORS, MistralStateDictAdapter, model_config, model_registry
from circius.weights.names import expected_shapes
from tests.models import random_model, random_tokens, tiny_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
LENGTHS = (9, 17, 6)
"""Of the documents in a row."""


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    """What torchtitan compiles is computed as it is written: CPUs may have no compiler, and have no triton."""
    with torch.compiler.set_stance("force_eager"):
        yield


def copied(ours: Transformer, attn_backend: str = "flex") -> Any:
    """torchtitan's model with our weights."""
    config = model_config(ours.config, attn_backend)
    theirs = config.build()
    theirs.load_state_dict(MistralStateDictAdapter(config, None).from_hf(ours.state_dict()))
    return theirs.eval()


def rows(n_rows: int) -> tuple[Tensor, Tensor]:
    """Ids and positions of rows of documents, in another order in each row."""
    ids = random_tokens(n_rows * sum(LENGTHS)).reshape(n_rows, -1)
    orders = [LENGTHS[row:] + LENGTHS[:row] for row in range(n_rows)]
    return ids, torch.stack([torch.cat([torch.arange(length) for length in order]) for order in orders])


def their_logits(theirs: Any, ids: Tensor, positions: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = theirs(ids, positions, theirs.get_attention_masks(positions))
    return logits


def our_logits(ours: Transformer, ids: Tensor, positions: Tensor) -> Tensor:
    starts = (positions.flatten() == 0).nonzero().flatten()
    lengths = torch.diff(starts, append=torch.tensor([ids.numel()])).tolist()
    with torch.inference_mode():
        return ours(ids.flatten(), lengths).view(*ids.shape, -1)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_names_and_shapes(flavor: str) -> None:
    spec = model_registry(flavor)
    with torch.device("meta"):
        model = spec.model.build()
    model.verify_module_protocol()
    assert sum(parameter.numel() for parameter in model.parameters()) == FLAVORS[flavor].n_parameters
    ours = spec.state_dict_adapter(spec.model, None).to_hf(model.state_dict())
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == expected_shapes(FLAVORS[flavor])


@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("window", [1, 5, 64, None])
def test_logits_are_ours_past_the_window(window: int | None, n_rows: int) -> None:
    ours = random_model(tiny_config(window=window))
    ids, positions = rows(n_rows)
    theirs = their_logits(copied(ours), ids, positions)
    torch.testing.assert_close(theirs, our_logits(ours, ids, positions), atol=2e-5, rtol=0)


@pytest.mark.parametrize("window", [4, 6, None])
def test_another_window_gives_other_logits(window: int | None) -> None:
    """So the test before this one would see a window that is one too small or too large, or none."""
    ids, positions = rows(1)
    theirs = their_logits(copied(random_model(tiny_config(window=window))), ids, positions)
    assert (theirs - our_logits(random_model(tiny_config(window=5)), ids, positions)).abs().max() > 0.01


def test_rope_and_norm_are_those_of_the_shape() -> None:
    config = tiny_config(window=None)
    ours = random_model(ModelConfig(**{**vars(config), "rope_theta": 1e6, "norm_eps": 1e-2}))
    ids, positions = rows(1)
    theirs = their_logits(copied(ours), ids, positions)
    torch.testing.assert_close(theirs, our_logits(ours, ids, positions), atol=2e-5, rtol=0)


def _dense(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options: Any
) -> Tensor:
    """In the place of flash-attention's kernels, which need CUDA: `window_size` is (before, after) the query."""
    before, after = options["window_size"]
    assert after == 0
    assert cu_q.equal(cu_k)
    place = torch.arange(len(q))
    document = torch.bucketize(place, cu_q[1:].to(torch.int64), right=True)
    distance = place[:, None] - place[None, :]
    seen = (document[:, None] == document[None, :]) & (distance >= 0) & ((distance <= before) | (before < 0))
    group = q.shape[1] // k.shape[1]
    k, v = (part.repeat_interleave(group, 1).transpose(0, 1) for part in (k, v))
    scores = q.transpose(0, 1).float() @ k.float().mT * (options["scale"] or 1 / math.sqrt(q.shape[2]))
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return (weights @ v.float()).transpose(0, 1).to(q.dtype)


@pytest.mark.parametrize("window", [1, 5, None])
def test_varlen_is_told_of_one_key_less_than_the_window(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    monkeypatch.setattr(attention, "varlen_attn", _dense)
    ours = random_model(tiny_config(window=window))
    model = copied(ours, "varlen")
    told = {layer.attention.inner_attention.window_size for layer in model.layers.values()}
    assert told == {(-1 if window is None else window - 1, 0)}
    ids, positions = rows(2)
    error = (their_logits(model, ids, positions) - our_logits(ours, ids, positions)).abs()
    assert error.max() < 0.3  # its inputs are bfloat16
    if window is not None:
        wider = random_model(tiny_config(window=window + 1))
        assert error.mean() < 0.1 * (our_logits(wider, ids, positions) - our_logits(ours, ids, positions)).abs().mean()


@pytest.mark.parametrize("window", [1, 3, 8])
def test_keys_that_varlen_shows_are_those_of_the_one_definition(window: int) -> None:
    config = model_config(tiny_config(window=window), "varlen")
    before, after = config.layers[0].attention.inner_attention.window_size
    for query in range(12):
        shown = [key for key in range(12) if query - before <= key <= query + after]
        assert shown == [key for key in range(12) if visible(query, key, window)]


def test_operations_are_those_inside_the_window() -> None:
    config = model_config(tiny_config(window=5))
    with torch.device("meta"):
        model = config.build()
    assert config.get_nparams_and_flops(model, 64) == config.get_nparams_and_flops(model, 5)
    assert config.get_nparams_and_flops(model, 5) > config.get_nparams_and_flops(model, 4)


@pytest.mark.parametrize(
    ("config", "backend", "complaint"),
    [
        (tiny_config(), "sdpa", "attn_backend must be one of flex, flex_flash, varlen, got 'sdpa'"),
        (tiny_config(window=(5, None)), "flex", r"one window for all layers, got \(5, None\)"),
        (tiny_config(tied=True), "flex", "no tied output"),
    ],
)
def test_what_is_refused(config: ModelConfig, backend: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        model_config(config, backend)


def test_a_flavor_that_does_not_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"no flavour '8B': circius\.titan has mistral_7b, mistral_7b_v03, mistral_debug"
    ):
        model_registry("8B")
