"""From layout to layout and back: the same bytes, and nothing lost or guessed."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, InvalidInputError, ModelNotFoundError
from circius.weights.checkpoint import open_checkpoint
from circius.weights.convert import convert
from circius.weights.load import load_model
from circius.weights.save import save_model

from .small import FORMATS, SMALL, TIED, logits_of, random_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    save_model(random_model(SMALL, torch.bfloat16), folder, metadata={"bos_token_id": 1, "eos_token_id": 2})
    return folder


@pytest.mark.parametrize(("config", "dtype"), list(itertools.product([SMALL, TIED], DTYPES)))
@pytest.mark.parametrize(("to", "name"), FORMATS[1:])
def test_there_and_back_gives_the_same_bytes(
    tmp_path: Path, to: str, name: str, config: ModelConfig, dtype: torch.dtype
) -> None:
    model = random_model(config, dtype)
    save_model(model, tmp_path / "first")
    convert(tmp_path / "first", tmp_path / name, to=to)
    convert(tmp_path / name, tmp_path / "last", to="hf")
    first, last = (tmp_path / folder / "model.safetensors" for folder in ("first", "last"))
    assert first.read_bytes() == last.read_bytes()
    assert torch.equal(logits_of(load_model(tmp_path / "last")), logits_of(model))
    described = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("first", "last")]
    assert described[1].pop("rms_norm_eps") == pytest.approx(described[0].pop("rms_norm_eps"), rel=1e-7)
    assert described[0] == described[1]


@pytest.mark.parametrize(("there", "back"), list(itertools.permutations(FORMATS[1:], 2)))
def test_between_the_others(tmp_path: Path, source: Path, there: tuple[str, str], back: tuple[str, str]) -> None:
    convert(source, tmp_path / f"a-{there[1]}", to=there[0])
    convert(tmp_path / f"a-{there[1]}", tmp_path / f"b-{back[1]}", to=back[0])
    original, arrived = open_checkpoint(source), open_checkpoint(tmp_path / f"b-{back[1]}")
    assert all(torch.equal(original.read(name), arrived.read(name, dtype=torch.bfloat16)) for name in original.names())


def test_quantised_weights_become_the_float32_values_that_they_stand_for(tmp_path: Path) -> None:
    save_model(random_model(SMALL), tmp_path / "q.gguf", to="gguf", quantization="Q8_0")
    written = convert(tmp_path / "q.gguf", tmp_path / "m", to="hf")
    quantised, plain = open_checkpoint(tmp_path / "q.gguf"), open_checkpoint(tmp_path / "m")
    assert written.stored_as == "float32"
    assert all(torch.equal(quantised.read(name), plain.read(name)) for name in quantised.names())
    again = convert(tmp_path / "m", tmp_path / "again.gguf", to="gguf", quantization="Q8_0")
    assert again.n_bytes < written.n_bytes / 3
    torch.testing.assert_close(
        logits_of(load_model(tmp_path / "again.gguf", dtype=torch.float32)),
        logits_of(load_model(tmp_path / "m")),
        atol=0.05,
        rtol=0.05,
    )


def test_open_checkpoint_is_taken_as_it_was_opened(tmp_path: Path, source: Path) -> None:
    convert(open_checkpoint(source, window=3), tmp_path / "m", to="hf")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["sliding_window"] == 3


def test_ids_of_special_tokens_are_kept_unless_given(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "m", to="hf", dtype=torch.float16, metadata={"eos_token_id": [2, 5]})
    described = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (described["bos_token_id"], described["eos_token_id"]) == (1, [2, 5])
    assert described["torch_dtype"] == "float16"


def test_target_may_not_touch_the_source(tmp_path: Path, source: Path) -> None:
    before = sorted(path.name for path in source.iterdir())
    (tmp_path / "link").symlink_to(source)
    for target in (source, source / "sub", source.parent, tmp_path / "link", tmp_path / "link" / "x"):
        with pytest.raises(InvalidInputError, match=r"are both|inside one another"):
            convert(source, target, to="consolidated", overwrite=True)
    assert sorted(path.name for path in source.iterdir()) == before


def test_gguf_may_be_written_beside_the_files_of_its_source(source: Path) -> None:
    convert(source, source / "model.gguf", to="gguf")
    assert open_checkpoint(source / "model.gguf").format == "gguf"
    with pytest.raises(InvalidInputError, match="inside one another"):
        convert(source / "model.gguf", source, to="hf", overwrite=True)
    with pytest.raises(InvalidInputError, match="are both"):
        convert(source / "model.gguf", source / "model.gguf", to="gguf", overwrite=True)


def test_faults_of_the_source_leave_no_target(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "nothing", tmp_path / "m", to="hf")
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        convert(source, tmp_path / "m", to="consolidated")
    assert list(tmp_path.iterdir()) == [source]
