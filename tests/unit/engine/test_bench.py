"""What is timed and counted; how long it takes is nobody's business here."""

import pytest
import torch

from circius.engine.bench import Bench, Run, Task, arithmetic_of, tasks_of, weight_bytes
from circius.engine.generate import BatchLimits
from circius.engine.workload import operations
from tests.unit.engine.tiny import tiny_model

PP, TG = Task(kind="prefill", n_tokens=40), Task(kind="decode", n_tokens=4, context=50, n_rows=3)


def bench(*, window: int | None = 16, context: int = 100) -> Bench:
    return Bench(tiny_model(window=window), context=context, limits=BatchLimits(chunk_size=16))


def test_tasks_are_each_context_and_then_each_batch() -> None:
    names = [task.name for task in tasks_of([512], [0, 4096], [2, 8], 16)]
    assert names == ["pp512", "tg16 x 2", "tg16 @ 4096 x 2", "tg16 x 8"]
    assert tasks_of([], [0], [], 16) == tasks_of([], [], [8], 16) == []


@pytest.mark.parametrize("task", [PP, TG, Task(kind="decode", n_tokens=2)])
def test_a_task_runs(task: Task) -> None:
    run = bench().run(task)
    assert run.seconds > 0


def test_decoding_goes_on_where_the_context_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(window=16)
    lengths: list[list[int]] = []

    def watched(tokens: torch.Tensor, new: list[int], **given: object) -> torch.Tensor:
        logits = forward(tokens, new, **given)
        lengths.append(list(given["cache"].lengths))  # type: ignore[attr-defined]
        return logits

    forward = model.forward
    monkeypatch.setattr(model, "forward", watched)
    Bench(model, context=100, limits=BatchLimits(chunk_size=16)).run(TG)
    assert lengths == [[length] * 3 for length in range(51, 56)]


def test_counts_of_a_prompt() -> None:
    ready = bench()
    measured = ready.measured(PP, [Run(2.0, None), Run(1.0, None), Run(4.0, 0.5)])
    assert measured.bytes_read == 3 * ready.weight_bytes
    assert measured.operations == operations(tiny_model(window=16).config, begin=0, n_tokens=40, n_logits=1)
    assert measured.seconds == 2.0
    assert measured.tokens_per_s == 20
    assert measured.span == (10, 40)
    assert measured.is_disturbed


def test_counts_of_decoding() -> None:
    model = tiny_model(window=16)
    ready = bench()
    measured = ready.measured(TG, [Run(1.0, 0.0)])
    full_window = model.config.cache_bytes(16, bytes_per_value=model.dtype.itemsize)
    assert measured.bytes_read == 4 * ready.weight_bytes + 3 * 4 * full_window
    assert measured.n_tokens == measured.tokens_per_s == 12
    assert not measured.is_disturbed


def test_weights_read_are_all_but_the_embedding() -> None:
    model = tiny_model()
    embedding = model.model.embed_tokens.weight
    every = sum(weight.numel() for weight in model.parameters())
    assert weight_bytes(model) == (every - embedding.numel()) * model.dtype.itemsize
    tied = tiny_model(tied=True)
    assert weight_bytes(tied) == sum(weight.numel() for weight in tied.parameters()) * tied.dtype.itemsize


def test_what_does_not_fit_the_context_is_named() -> None:
    assert bench(window=None, context=54).why_not(TG) == "tg4 @ 50 x 3: 55 tokens do not fit the context of 54"
    assert bench(window=None, context=55).why_not(TG) is None
    assert bench(window=16, context=54).why_not(TG) is None


def test_what_does_not_fit_the_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circius.engine.bench.available_bytes", lambda device: 1000)
    said = bench().why_not(TG)
    assert said is not None
    assert "memory" in said


def test_the_arithmetic_of_a_plain_model() -> None:
    assert arithmetic_of(tiny_model()) == "float32"
