"""What real Mistral 7B weights are known to say. The weights are 14.5 GB and not downloaded here: pull them first.

The facts about files and tokens need no weights and are always tested.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from circius import LLM, SamplingParams
from circius.base.config import PRESETS
from circius.base.errors import ModelNotFoundError
from circius.weights.hub import resolve
from circius.weights.params_json import read_params_json
from tests.vocabularies import mistral

FACTS = json.loads(Path(__file__).with_name("mistral7b.json").read_text(encoding="utf-8"))


@cache
def loaded(alias: str) -> LLM:
    try:
        path = resolve(alias)
    except ModelNotFoundError:
        pytest.skip(f"needs the weights: run `circius pull {alias}` first")
    return LLM(path, dtype="float16")


@pytest.mark.quick
def test_the_params_json_of_v01_means_the_preset(tmp_path: Path) -> None:
    """It carries no rope_theta: 1e4 is chosen, and said, where official tools disagree."""
    file = tmp_path / "params.json"
    file.write_text(json.dumps(FACTS["params_json_v0.1"]))
    config, notes = read_params_json(file, tied_output=False)
    assert config == PRESETS["v0.1"]
    assert any("rope_theta" in note and "10000" in note for note in notes)


@pytest.mark.quick
@pytest.mark.parametrize("fact", FACTS["greedy"], ids=lambda fact: fact["prompt"])
def test_prompts_have_the_known_ids(fact: dict[str, Any]) -> None:
    assert mistral("v1").encode(fact["prompt"], bos=True) == fact["prompt_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("fact", FACTS["greedy"], ids=lambda fact: fact["prompt"])
def test_greedy_tokens(fact: dict[str, Any]) -> None:
    params = SamplingParams(temperature=0, max_tokens=len(fact["ids"]), logprobs=0)
    [answer] = loaded(fact["model"]).generate([fact["prompt_ids"]], params)[0].outputs
    assert answer.token_ids == fact["ids"]
    if "logprobs" in fact:
        assert answer.logprobs is not None
        found = [entry[token].logprob for entry, token in zip(answer.logprobs, fact["ids"], strict=True)]
        assert found == pytest.approx(fact["logprobs"], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("fact", FACTS["continuations"], ids=lambda fact: fact["prompt"])
def test_the_continuations_of_the_first_readme(fact: dict[str, Any]) -> None:
    params = SamplingParams(temperature=0, max_tokens=fact["max_tokens"])
    [result] = loaded(fact["model"]).generate(fact["prompt"], params)
    assert fact["prompt"] + result.outputs[0].text == fact["whole_text"]


@pytest.mark.slow
def test_mean_logits() -> None:
    fact = FACTS["logits"]
    model = loaded("mistral-7b-v0.1").model
    with torch.inference_mode():
        logits = model(torch.tensor(fact["input_ids"]), [len(fact["input_ids"])])
    assert logits.mean(dim=-1).tolist() == pytest.approx(fact["mean_over_vocab_per_position"], abs=0.03)


@pytest.mark.slow
def test_a_prompt_one_token_longer_than_the_window() -> None:
    fact = FACTS["past_the_window"]
    [result] = loaded(fact["model"]).generate([[1] + [306, 338] * 2048], SamplingParams(temperature=0, max_tokens=4))
    assert result.outputs[0].token_ids[-2:] == fact["ids"]
