"""Our cuts and penalties against transformers' logits processors, on random logits."""

import pytest
import torch
from torch import Tensor

from circius.engine.device_sampler import cut_min_p, cut_top_k, cut_top_p
from circius.engine.host_sampler import HostSampler
from circius.engine.params import SamplingParams
from circius.engine.sampling import SamplerRow

transformers = pytest.importorskip("transformers")

SEEDS = range(20)


def _logits(seed: int) -> Tensor:
    return torch.randn(3, 300, generator=torch.Generator().manual_seed(seed)) * 4


def _same(ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("top_k", [1, 5, 50])
def test_top_k(seed: int, top_k: int) -> None:
    logits = _logits(seed)
    theirs = transformers.TopKLogitsWarper(top_k)(None, logits.clone())
    _same(cut_top_k(logits, torch.full((3, 1), top_k), largest=top_k), theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_top_p(seed: int, top_p: float) -> None:
    logits = _logits(seed)
    theirs = transformers.TopPLogitsWarper(top_p)(None, logits.clone())
    _same(cut_top_p(logits, torch.full((3, 1), top_p)), theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("min_p", [0.01, 0.2, 1.0])
def test_min_p(seed: int, min_p: float) -> None:
    logits = _logits(seed)
    theirs = transformers.MinPLogitsWarper(min_p)(None, logits.clone())
    _same(cut_min_p(logits, torch.full((3, 1), min_p)), theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_temperature_top_k_and_top_p_in_a_row(seed: int) -> None:
    logits = _logits(seed)
    theirs = logits.clone()
    for warper in (
        transformers.TemperatureLogitsWarper(0.7),
        transformers.TopKLogitsWarper(40),
        transformers.TopPLogitsWarper(0.8),
    ):
        theirs = warper(None, theirs)
    ours = cut_top_p(cut_top_k(logits / 0.7, torch.full((3, 1), 40), largest=40), torch.full((3, 1), 0.8))
    _same(ours, theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("penalty", [0.8, 1.3])
def test_repetition_penalty_over_prompt_and_answer(seed: int, penalty: float) -> None:
    rows = [[1, 2, 3], [7], [9, 9]]
    params = SamplingParams.greedy(repetition_penalty=penalty)
    sampler = HostSampler([SamplerRow(params, row) for row in rows], vocab_size=300)
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    for step in range(8):
        logits = _logits(100 * seed + step)
        theirs = [processor(torch.tensor([row]), logits[place : place + 1]) for place, row in enumerate(rows)]
        expected = torch.cat(theirs).argmax(-1).tolist()
        assert sampler(logits, [[]] * 3) == [[token] for token in expected]
        for row, token in zip(rows, expected, strict=True):
            row.append(token)
