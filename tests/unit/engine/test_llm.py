"""Loading: what is chosen and said, what is refused; chat; the names that the package offers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import circius
from circius import ChatSession
from circius.base.errors import (
    InvalidInputError,
    ModelNotFoundError,
    ParamsError,
    TemplateError,
    TokenizerError,
)
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.kernels import native, ring_attention
from circius.text import load_tokenizer, write_byte_tokenizer
from circius.weights.save import save_model
from circius.weights.write_packed import write_packed
from tests.models import random_model
from tests.packed import packable_config, plan_of, rounded, write_folder
from tests.unit.engine.tiny import BYTE_VOCAB, byte_llm, tiny_model

GREEDY = SamplingParams.greedy(max_tokens=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer and without a chat template."""
    folder = tmp_path_factory.mktemp("model")
    save_model(tiny_model(vocab_size=BYTE_VOCAB, window=5), folder, to="hf")
    write_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a tokenizer."""
    folder = tmp_path_factory.mktemp("bare")
    save_model(tiny_model(window=5), folder, to="hf")
    return folder


def test_a_loaded_model_answers_as_the_one_that_was_saved(folder: Path) -> None:
    llm = LLM(folder, device="cpu")
    own = LLM.of(tiny_model(vocab_size=BYTE_VOCAB, window=5), tokenizer=load_tokenizer(folder))
    assert llm.generate("Hi", GREEDY)[0].outputs == own.generate("Hi", GREEDY)[0].outputs
    assert (llm.context, llm.config.window_size) == (64, 5)


@pytest.mark.parametrize(("asked", "speculate", "n_notes"), [(None, 0, 0), (0, 0, 0), (3, 3, 1)])
def test_plain_weights_speculate_only_if_asked_and_with_a_note(
    bare: Path, asked: int | None, speculate: int, n_notes: int
) -> None:
    llm = LLM(bare, device="cpu", speculate=asked)
    assert llm.limits.speculate == speculate
    assert sum("speculation" in note for note in llm.notes) == n_notes


@pytest.mark.skipif(not ring_attention.is_fast(), reason="the native kernels were not built here")
@pytest.mark.parametrize(
    ("more", "speculate", "n_notes"),
    [
        ({"activations": "int8"}, 8, 0),
        ({"activations": "int8", "speculate": 0}, 0, 0),
        ({}, 0, 0),  # a small model takes its inputs unrounded
        ({"activations": "float"}, 0, 0),
        ({"dtype": "float32"}, 0, 0),
    ],
)
def test_packed_weights_speculate_by_themselves_where_it_is_exact(
    tmp_path: Path, more: dict[str, Any], speculate: int, n_notes: int
) -> None:
    config = packable_config()
    state = random_model(config).state_dict()
    weights = {name: rounded(value) if value.ndim == 2 else value for name, value in state.items()}
    write_packed(tmp_path, config, plan_of(weights), weights.values(), quantization={"bits": 4})
    llm = LLM(tmp_path, device="cpu", **more)
    assert llm.limits.speculate == speculate
    assert sum("speculation" in note for note in llm.notes) == n_notes
    with native.disabled():
        assert LLM(tmp_path, device="cpu").limits.speculate == 0


def test_options_replace_what_the_checkpoint_says_and_are_noted(folder: Path) -> None:
    llm = LLM(str(folder), device="cpu", window=None, context=100, dtype="bf16", chat_template="v1")
    assert llm.config.window_size is None
    assert llm.model.dtype == torch.bfloat16
    assert llm.context == 100
    notes = " | ".join(llm.notes)
    assert "window_size is None as asked" in notes
    assert "context is 100 tokens as asked" in notes
    assert len(llm.chat([{"role": "user", "content": "Hi"}], GREEDY)[0].outputs[0].token_ids) == 4


def test_a_packed_checkpoint_is_used_packed_and_the_activations_are_as_asked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", packable_config())
    rounded, exact = LLM(folder, device="cpu"), LLM(folder, device="cpu", activations="float")
    assert rounded.model.is_packed
    assert exact.model.is_packed
    assert any("4 bits in groups of 32" in note and "activations in float32" in note for note in exact.notes)
    unpacked = LLM(folder, device="cpu", dtype="float32")
    assert not unpacked.model.is_packed
    ids = [3, 4, 5]
    own, theirs = (llm.generate(ids, GREEDY)[0].outputs[0].token_ids for llm in (exact, unpacked))
    assert own == theirs
    assert len(rounded.generate(ids, GREEDY)[0].outputs[0].token_ids) == 4


@pytest.mark.parametrize(
    ("asked", "dtype", "expected"),
    [
        (None, "float32", torch.float32),
        (None, "bfloat16", torch.bfloat16),
        (32, "bfloat16", torch.float32),
        (16, "bfloat16", torch.bfloat16),
        (16, "float32", torch.float16),
        (8, "float32", torch.int8),
    ],
)
def test_the_cache_has_the_bits_asked_for(folder: Path, asked: int | None, dtype: str, expected: torch.dtype) -> None:
    llm = LLM(folder, device="cpu", dtype=dtype, kv_bits=asked)
    assert llm.model.cache_dtype == expected
    assert len(llm.generate("Hi", GREEDY)[0].outputs[0].token_ids) == 4
    session = ChatSession(LLM(folder, device="cpu", dtype=dtype, kv_bits=asked, chat_template="v1"))
    session.ask("Hi", GREEDY)
    assert session.n_cache_bytes == llm.model.cache_bytes(session.n_cached_tokens)  # the window is full
    exact = LLM(folder, device="cpu", dtype=dtype, kv_bits=32).score("A text to score, a little longer than windows.")
    found = llm.score("A text to score, a little longer than windows.")
    assert found.mean_nll == pytest.approx(exact.mean_nll, abs=0.02)


@pytest.mark.parametrize("kv_bits", [0, 4, 64, True, 8.0, "8"])
def test_other_bits_are_refused(folder: Path, kv_bits: Any) -> None:
    with pytest.raises(InvalidInputError, match="8, 16 or 32"):
        LLM(folder, device="cpu", kv_bits=kv_bits)


def test_packed_weights_have_a_cache_of_16_bits(tmp_path: Path) -> None:
    model = LLM(write_folder(tmp_path / "m", packable_config()), device="cpu").model
    assert (model.dtype, model.cache_dtype) == (torch.float32, torch.float16)


def test_threads_are_set(folder: Path) -> None:
    before = torch.get_num_threads()
    LLM(folder, device="cpu", threads=before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_progress_ends_at_the_whole(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    LLM(folder, device="cpu", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]


def test_a_checkpoint_without_a_tokenizer_takes_token_ids(bare: Path) -> None:
    llm = LLM(bare, device="cpu")
    assert llm.tokenizer is None
    assert any("has no tokenizer" in note for note in llm.notes)
    assert len(llm.generate([3, 4], GREEDY)[0].outputs[0].token_ids) == 4
    with pytest.raises(TemplateError, match="no chat template"):
        llm.chat([{"role": "user", "content": "Hi"}])


def test_a_tokenizer_of_another_model_is_refused(folder: Path, bare: Path) -> None:
    with pytest.raises(TokenizerError, match="259 tokens, but the model's vocabulary has 61"):
        LLM(bare, device="cpu", tokenizer=folder)


def test_a_damaged_tokenizer_is_not_a_missing_one(bare: Path, tmp_path: Path) -> None:
    save_model(tiny_model(window=5), tmp_path / "m", to="hf")
    (tmp_path / "m" / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        LLM(tmp_path / "m", device="cpu")


def test_a_template_asked_for_by_name_must_be_there(folder: Path) -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        LLM(folder, device="cpu", chat_template="model")


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"dtype": "int8"}, InvalidInputError, "dtype must be auto, float32, bfloat16 or float16, got 'int8'"),
        ({"dtype": torch.int64}, InvalidInputError, "dtype"),
        ({"device": "toaster"}, InvalidInputError, "device must be auto, cpu, cuda"),
        ({"device": "cuda:99"}, InvalidInputError, "CUDA devices"),
        ({"activations": "int4"}, InvalidInputError, "activations must be auto, int8 or float, got 'int4'"),
        ({"threads": 0}, ParamsError, "threads"),
        ({"context": 0}, InvalidInputError, "context"),
        ({"context": "8k"}, InvalidInputError, "context"),
        ({"max_rows": 0}, ParamsError, "max_rows"),
        ({"chunk_size": -1}, ParamsError, "chunk_size"),
        ({"chat_template": "v9"}, ParamsError, "v9"),
        ({"injection": "maybe"}, ParamsError, "maybe"),
    ],
)
def test_bad_options_are_refused(folder: Path, given: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        LLM(folder, **{"device": "cpu", **given})


def test_a_model_that_is_not_here() -> None:
    with pytest.raises(ModelNotFoundError):
        LLM("no/such-model-anywhere")


def test_chat_answers_each_conversation_and_stops_at_its_end_of_turn(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path)
    hello = [{"role": "user", "content": "Hello"}]
    one, two = llm.chat([hello, [*hello, {"role": "assistant", "content": "Yes"}, *hello]], GREEDY)
    assert one.prompt == "<s>[INST] Hello [/INST]"
    assert llm.tokenizer is not None
    assert two.prompt_token_ids[: len(one.prompt_token_ids)] == one.prompt_token_ids
    assert llm.chat(hello, GREEDY)[0].outputs == one.outputs
    continued = llm.chat([*hello, {"role": "assistant", "content": "Yes"}], GREEDY, continue_final=True)[0]
    assert continued.prompt_token_ids[-3:] == [3 + byte for byte in b"Yes"]


@pytest.mark.parametrize("messages", ["Hello", {"role": "user", "content": "x"}, 3, [["Hello"]]])
def test_what_is_no_conversation_is_refused(tmp_path: Path, messages: Any) -> None:
    with pytest.raises(InvalidInputError):
        byte_llm(tmp_path).chat(messages)


def test_the_package_offers_its_names_lazily() -> None:
    assert circius.LLM is LLM
    assert circius.__version__ == "0.1.0"
    assert set(circius.__all__) <= set(dir(circius))
    for name in circius.__all__:
        assert getattr(circius, name).__class__ is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = circius.nothing
    code = "import circius, sys; circius.SamplingParams, circius.__version__; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
