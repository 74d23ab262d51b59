"""Random checkpoints: the same numbers in every layout and size, and written in little memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import InvalidInputError, StorageError
from circius.weights.checkpoint import open_checkpoint
from circius.weights.init import init_checkpoint, random_weight
from circius.weights.load import load_model

from .small import FORMATS, SMALL, TIED, logits_of


@pytest.mark.parametrize("config", [SMALL, TIED])
def test_logits_are_the_same_in_every_layout(tmp_path: Path, config: ModelConfig) -> None:
    logits = []
    for to, name in FORMATS:
        init_checkpoint(config, tmp_path / to / name, to=to, seed=5)
        logits.append(logits_of(load_model(tmp_path / to / name, dtype=torch.float32)))
    assert logits[0].std() > 0
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_values_depend_on_seed_and_name_alone(tmp_path: Path) -> None:
    init_checkpoint(SMALL, tmp_path / "three", seed=1)
    init_checkpoint(replace(SMALL, n_layers=2, tied_output=True), tmp_path / "two", seed=1)
    init_checkpoint(SMALL, tmp_path / "other", seed=2)
    three, two, other = (open_checkpoint(tmp_path / name) for name in ("three", "two", "other"))
    assert all(torch.equal(two.read(name), three.read(name)) for name in two.names())
    matrices = [name for name in three.names() if "norm" not in name]
    assert not any(torch.equal(other.read(name), three.read(name)) for name in matrices)


def test_long_weight_begins_like_a_short_one_of_its_name() -> None:
    short, long = (random_weight("w", (n, 2048), seed=0, dtype=torch.float32) for n in (3, 2_500))
    assert torch.equal(long[:3], short)  # across the borders of blocks, too
    assert torch.equal(random_weight("w", (3, 2048), seed=0, dtype=torch.bfloat16), short.bfloat16())


def test_values_are_normal_with_the_usual_deviation() -> None:
    values = random_weight("w", (1000, 1000), seed=0, dtype=torch.float32)
    assert values.mean().abs() < 1e-4
    assert values.std() == pytest.approx(0.02, rel=0.01)
    assert (values.abs() < 0.02).float().mean() == pytest.approx(0.6827, abs=0.005)


def test_golden_values_do_not_drift() -> None:
    values = random_weight("model.embed_tokens.weight", (2, 2), seed=0, dtype=torch.float32)
    expected = [[-0.002287499, 0.010471256], [0.002258612, -0.007331472]]
    torch.testing.assert_close(values, torch.tensor(expected), atol=1e-7, rtol=0)


def test_norms_are_ones(tmp_path: Path) -> None:
    init_checkpoint(SMALL, tmp_path / "m")
    assert torch.equal(open_checkpoint(tmp_path / "m").read("model.norm.weight"), torch.ones(64).bfloat16())


def test_quantised_gguf(tmp_path: Path) -> None:
    written = init_checkpoint(SMALL, tmp_path / "m.gguf", to="gguf", quantization="Q4_0")
    assert written.stored_as == "Q4_0"
    assert open_checkpoint(tmp_path / "m.gguf").config.n_layers == 3


@pytest.mark.parametrize("seed", [-1, True, 1.5, "x"])
def test_refuses_seeds_that_are_none(tmp_path: Path, seed: object) -> None:
    with pytest.raises(InvalidInputError, match="seed must be a whole number"):
        init_checkpoint(SMALL, tmp_path / "m", seed=seed)  # type: ignore[arg-type]


def test_model_larger_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    huge = replace(PRESETS["v0.1"], vocab_size=10**9)
    with pytest.raises(StorageError, match=r"not enough disk space .* GB needed"):
        init_checkpoint(huge, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_stays_far_below_the_size_of_the_checkpoint(tmp_path: Path) -> None:
    """170 MB in every layout take the largest tensor and a block of random numbers a thread, not the whole."""
    program = """
from pathlib import Path
from circius.base.config import ModelConfig
from circius.weights.init import init_checkpoint

tiny = ModelConfig(dim=64, n_layers=1, head_dim=32, hidden_dim=96, n_heads=2, n_kv_heads=1, vocab_size=9, context_len=8)
large = ModelConfig(dim=1024, n_layers=6, head_dim=64, hidden_dim=3072, n_heads=16, n_kv_heads=4, vocab_size=8000,
                    context_len=64)
for to, name in FORMATS:
    init_checkpoint(tiny, Path("tiny") / to / name, to=to)
def peak_kb():  # of this process alone; getrusage would count the parent that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak_kb()
for to, name in FORMATS:
    written = init_checkpoint(large, Path(name), to=to, overwrite=True)
print(written.n_bytes // 1024, peak_kb() - before)
"""
    command = [sys.executable, "-c", f"FORMATS = {FORMATS}\n{program}"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    written_kb, grown_kb = map(int, ran.stdout.split())
    assert written_kb > 160_000
    assert grown_kb < written_kb / 2
