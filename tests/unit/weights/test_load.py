"""load_model: the same logits from every format, one copy in memory, every value looked at."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, InvalidInputError
from circius.kernels import native
from circius.weights import load, load_model, open_checkpoint
from circius.weights.memory import available_bytes
from tests.models import random_model, random_tokens, tiny_config
from tests.unit.weights.files import write_consolidated, write_gguf, write_hf


def write(folder: Path, form: str, config: ModelConfig, state: dict[str, torch.Tensor]) -> Path:
    if form == "gguf":
        return write_gguf(folder / "m.gguf", config, state)
    if form == "hf":
        return write_hf(folder, config, state, shards=2)
    return write_consolidated(folder, config, state, file=form)


FORMS = ("hf", "consolidated.safetensors", "consolidated.00.pth", "gguf")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tied", [False, True])
def test_every_format_gives_the_same_logits(tmp_path: Path, form: str, tied: bool) -> None:
    config = tiny_config(tied=tied)
    model = random_model(config)
    path = write(tmp_path, form, config, model.state_dict())
    loaded = load_model(open_checkpoint(path, window=config.window_size))
    tokens = random_tokens(17)
    with torch.inference_mode():
        # GGUF stores norm_eps in 32 bits, which moves the last digit
        torch.testing.assert_close(loaded(tokens, [11, 6]), model(tokens, [11, 6]), atol=1e-6, rtol=1e-6)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(parameter.is_contiguous() for parameter in loaded.parameters())
    assert {name: p.shape for name, p in loaded.named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_dtype_may_be_asked_for_and_rounding_is_told(tmp_path: Path, form: str) -> None:
    config = tiny_config()
    path = write(tmp_path, form, config, random_model(config).state_dict())
    notes: list[str] = []
    model = load_model(path, dtype=torch.bfloat16, on_note=notes.append)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert notes == [f"{len(list(model.parameters()))} of 21 weights are stored as float32 and rounded to bfloat16"]
    assert model.dtype == torch.bfloat16
    with pytest.raises(InvalidInputError, match="dtype must be one of"):
        load_model(path, dtype=torch.int8)


def test_auto_is_the_dtype_of_the_checkpoint(tmp_path: Path) -> None:
    config = tiny_config()
    state = {name: value.bfloat16() for name, value in random_model(config).state_dict().items()}
    notes: list[str] = []
    assert load_model(write_hf(tmp_path, config, state), on_note=notes.append).dtype == torch.bfloat16
    assert notes == []


def test_quantised_weights_are_exact_where_memory_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gguf import GGMLQuantizationType

    config = tiny_config(window=None)
    kinds = {"token_embd.weight": GGMLQuantizationType.Q8_0}
    path = write_gguf(tmp_path / "m.gguf", config, random_model(config).state_dict(), kinds=kinds)
    needed = 4 * config.n_parameters
    for available, expected in ((2 * needed, torch.float32), (2 * needed - 1, torch.bfloat16)):
        monkeypatch.setattr(load, "available_bytes", lambda _, available=available: available)
        notes: list[str] = []
        with native.disabled():
            assert load_model(path, on_note=notes.append).dtype == expected
        assert len(notes) == 1
        assert str(expected).removeprefix("torch.") in notes[0]


def test_available_memory_is_less_than_there_is() -> None:
    assert 2**20 < available_bytes() < 2**50


@pytest.mark.parametrize("form", FORMS)
def test_progress_reaches_the_whole(tmp_path: Path, form: str) -> None:
    config = tiny_config()
    path = write(tmp_path, form, config, random_model(config).state_dict())
    seen: list[tuple[int, int]] = []
    load_model(path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) == 21
    assert seen[-1] == (open_checkpoint(path).n_bytes,) * 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.up_proj.weight"])
def test_a_value_that_is_not_finite_is_refused_by_file_and_tensor(
    tmp_path: Path, form: str, bad: float, name: str
) -> None:
    config = tiny_config()
    model = random_model(config)
    model.get_parameter(name).data[3, 2] = bad
    path = write(tmp_path, form, config, model.state_dict())
    checkpoint = open_checkpoint(path)
    with pytest.raises(CheckpointError) as caught:
        load_model(checkpoint)
    stored = checkpoint.tensors[name]
    assert f"{stored.file}: {stored.name} holds 1 values that are NaN or infinite" in str(caught.value)
    assert f"({bad}) at [3, 2]" in str(caught.value)
    assert not torch.isfinite(load_model(checkpoint, check_finite=False).get_parameter(name)).all()


def test_values_too_large_for_a_dtype_are_refused(tmp_path: Path) -> None:
    config = tiny_config()
    model = random_model(config)
    model.model.norm.weight.data[4] = 1e6
    path = write_hf(tmp_path, config, model.state_dict())
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has 1 values too large for torch\.float16"):
        load_model(path, dtype=torch.float16)
    assert load_model(path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_that_need_no_change_stay_in_the_mapping(tmp_path: Path) -> None:
    """A copy would not care about a later write to the file; pages that were never touched show it."""
    config = tiny_config()
    path = write_hf(tmp_path, config, random_model(config).state_dict())
    model = load_model(path, check_finite=False)
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(bytes(len(content) - start))
    assert not any(parameter.any() for parameter in model.parameters())


PEAK = """
import sys, resource, torch
from pathlib import Path
torch.set_num_threads(1)
from circius.weights import open_checkpoint, load_model
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
checkpoint = open_checkpoint(Path(sys.argv[1]))
before = peak()
model = load_model(checkpoint, dtype=getattr(torch, sys.argv[2]))
print((peak() - before) / sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("hf", "float32"),
        ("consolidated.safetensors", "bfloat16"),
        ("consolidated.00.pth", "bfloat16"),
        ("gguf", "bfloat16"),
    ],
)
def test_peak_memory_is_that_of_one_model(tmp_path: Path, form: str, dtype: str) -> None:
    """Stored as bfloat16 (float32 in GGUF), about half of it in q and k, which consolidated files must copy."""
    config = ModelConfig(
        dim=1024, n_layers=8, head_dim=128, hidden_dim=1024, n_heads=32, n_kv_heads=8, vocab_size=512, context_len=64
    )
    stored = torch.float32 if form == "gguf" else torch.bfloat16
    state = {name: torch.ones(p.shape, dtype=stored) for name, p in meta_model(config).named_parameters()}
    path = write(tmp_path, form, config, state)
    command = [sys.executable, "-c", PEAK, str(path), dtype]
    ratio = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # The slack is one layer's temporaries, which at this size are some per cent of the whole.
    assert ratio < 1.1, f"the peak was {ratio:.2f} times the model"


def meta_model(config: ModelConfig) -> torch.nn.Module:
    from circius.model import Transformer

    with torch.device("meta"):
        return Transformer(config)


def test_the_package_itself_imports_nothing_heavy() -> None:
    command = (
        "import circius.weights, sys; print('torch' in sys.modules); "
        "circius.weights.load_model; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "True"]


def test_loading_does_not_wait_for_the_compiler(tmp_path: Path) -> None:
    """Random first values on the meta device would import torch's compiler: seconds at every start."""
    config = tiny_config()
    path = write_hf(tmp_path, config, random_model(config).state_dict())
    command = (
        "import sys; from circius.weights import load_model; "
        f"load_model({str(path)!r}); print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
