"""Adapters in the engine: each request gets what it would get alone, and finds only what was computed for its like."""

from pathlib import Path

import pytest

from circius.base.errors import CheckpointError
from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.engine.request import Limits, make_request
from circius.model import Adapter
from circius.weights.adapter import write_adapter
from circius.weights.save import save_model
from tests.adapters import random_adapter
from tests.packed import fully_packed_model, packable_config
from tests.unit.engine.tiny import answer_ids, tiny_model

PROMPT = [(7 * i) % 61 for i in range(150)]
LIMITS = EngineLimits(cache_tokens=64 * 60, chunk_size=64, mixed_chunk_size=32)


def _requests(engine: Engine, adapters: list[Adapter | None], *, n: int = 1) -> list[list[list[int]]]:
    limits = Limits(context=4000, vocab_size=61, has_tokenizer=False)
    request = make_request(PROMPT, SamplingParams(temperature=0.9, seed=3, max_tokens=12, n=n), limits)
    jobs = [engine.submit(request, adapter=adapter) for adapter in adapters]
    while engine.step():
        engine.check()
    return [[answer.token_ids for answer in job.output().outputs] for job in jobs]


@pytest.mark.parametrize("window", [None, 20])
def test_rows_of_one_batch_have_different_adapters(window: int | None) -> None:
    model = fully_packed_model(packable_config(window=window))
    adapters = [random_adapter(model.config, seed=seed) for seed in (1, 2)]
    kinds = [adapters[0], None, adapters[1], adapters[0], None]
    together = _requests(Engine(model, limits=LIMITS), kinds, n=2)
    alone = [_requests(Engine(model, limits=LIMITS), [kind], n=2)[0] for kind in kinds]
    assert together == alone
    assert together[0] == together[3]
    assert len({str(answers) for answers in together[:3]}) == 3, "the adapters change nothing"


def test_prompts_are_found_only_by_requests_with_the_same_adapter() -> None:
    model = tiny_model()
    one, same, two = (random_adapter(model.config, seed=seed) for seed in (1, 1, 2))
    engine = Engine(model, limits=LIMITS)
    limits = Limits(context=4000, vocab_size=61, has_tokenizer=False)
    request = make_request(PROMPT, SamplingParams(temperature=0, max_tokens=2), limits)

    def found(adapter: Adapter | None) -> int:
        job = engine.submit(request, adapter=adapter)
        while engine.step():
            pass
        return job.n_found

    assert [found(adapter) for adapter in (None, one, two)] == [0, 0, 0]
    assert found(None) == found(one) == found(two) == 128
    assert found(same) == 128, "the same numbers under another name are the same adapter"


def test_an_adapter_may_leave_while_its_requests_run() -> None:
    """The engine keeps what a request was submitted with."""
    model = tiny_model()
    expected = _requests(Engine(model, limits=LIMITS), [random_adapter(model.config, seed=1)])
    engine = Engine(model, limits=LIMITS)
    shelf = {"mine": random_adapter(model.config, seed=1)}
    limits = Limits(context=4000, vocab_size=61, has_tokenizer=False)
    request = make_request(PROMPT, SamplingParams(temperature=0.9, seed=3, max_tokens=12), limits)
    job = engine.submit(request, adapter=shelf["mine"])
    engine.step()
    del shelf["mine"]
    while engine.step():
        pass
    assert [[answer.token_ids for answer in job.output().outputs]] == expected


def test_an_llm_takes_an_adapter_for_all_it_does(tmp_path: Path) -> None:
    model = tiny_model()
    adapter = random_adapter(model.config, seed=4)
    save_model(model, tmp_path / "model")
    write_adapter(tmp_path / "adapter", adapter)
    params = SamplingParams(temperature=0, max_tokens=8)
    base, adapted = LLM(tmp_path / "model"), LLM(tmp_path / "model", adapter=tmp_path / "adapter")
    assert answer_ids(adapted, PROMPT[:20], params) != answer_ids(base, PROMPT[:20], params)
    base.model.adapter = base.read_adapter(tmp_path / "adapter")
    assert answer_ids(adapted, PROMPT[:20], params) == answer_ids(base, PROMPT[:20], params)
    assert any("rank 3" in note for note in adapted.notes)
    with pytest.raises(CheckpointError, match="no folder"):
        LLM(tmp_path / "model", adapter=tmp_path / "nowhere")
