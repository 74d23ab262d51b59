"""Each format, read back by its own project's reader; and all or nothing on disk."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, ConfigError, InvalidInputError, StorageError
from circius.model import Transformer
from circius.weights.cast import cast, fits_exactly
from circius.weights.describe import consolidated_params, hf_config
from circius.weights.names import half_to_interleaved, to_consolidated, to_gguf
from circius.weights.plan import PlannedTensor
from circius.weights.save import save_model
from circius.weights.target import new_file, new_folder
from circius.weights.write_safetensors import shard, write_safetensors, write_sharded

from .small import FORMATS, MIXED, SMALL, TIED, logits_of, random_model


def planned(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> PlannedTensor:
    return PlannedTensor(hf_name=name, name=name, shape=shape, dtype=dtype)


class TestSafetensors:
    def test_reader_of_the_format_gives_the_same_tensors(self, tmp_path: Path) -> None:
        tensors = [torch.randn(3, 5), torch.randn(7).bfloat16(), torch.randn(2, 2).half()]
        plan = [planned(f"t{i}", *t.shape, dtype=t.dtype) for i, t in enumerate(tensors)]
        write_safetensors(tmp_path / "a.safetensors", plan, iter(tensors))
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}
            assert all(torch.equal(file.get_tensor(f"t{i}"), t) for i, t in enumerate(tensors))
        header_bytes = int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little")
        assert header_bytes % 8 == 0

    def test_shards_hold_at_most_their_size_and_every_tensor_once(self) -> None:
        plan = [planned(str(i), n) for i, n in enumerate([5, 5, 30, 1, 9, 2])]
        shards = shard(plan, shard_bytes=40)
        assert [[int(p.name) for p in one] for one in shards] == [[0, 1], [2], [3, 4], [5]]
        assert all(len(one) == 1 or sum(p.n_bytes for p in one) <= 40 for one in shards)

    def test_wider_dtypes_come_first_so_that_values_are_aligned(self) -> None:
        plan = [planned("narrow", 1, dtype=torch.bfloat16), planned("wide", 1), planned("wide too", 1)]
        assert [p.name for p in shard(plan)[0]] == ["wide", "wide too", "narrow"]

    def test_index_names_the_file_of_every_tensor(self, tmp_path: Path) -> None:
        tensors = {f"t{i}": torch.randn(4, i + 1) for i in range(5)}
        shards = shard([planned(name, *t.shape) for name, t in tensors.items()], shard_bytes=100)
        write_sharded(tmp_path, shards, (tensors[p.name] for one in shards for p in one))
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
        assert len(set(index["weight_map"].values())) == len(shards) > 1
        for name, file in index["weight_map"].items():
            assert torch.equal(load_file(tmp_path / file)[name], tensors[name])


class TestPth:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_torch_reads_it_mapped_and_without_running_code(self, tmp_path: Path, dtype: torch.dtype) -> None:
        model = random_model(SMALL, dtype)
        save_model(model, tmp_path / "m", to="consolidated-pth")
        file = tmp_path / "m" / "consolidated.00.pth"
        for mmap in (True, False):
            stored = torch.load(file, weights_only=True, mmap=mmap)
            assert list(stored)[:2] == ["tok_embeddings.weight", "layers.0.attention_norm.weight"]
            for name, weight in model.named_parameters():
                heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
                expected = half_to_interleaved(weight, heads) if heads else weight
                assert torch.equal(stored[to_consolidated(name)], expected)

    def test_every_checksum_of_the_archive_is_right(self, tmp_path: Path) -> None:
        save_model(random_model(SMALL), tmp_path / "m", to="consolidated-pth")
        file = tmp_path / "m" / "consolidated.00.pth"
        assert zipfile.ZipFile(file).testzip() is None
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        assert zipfile.ZipFile(file).testzip() is not None


class TestGguf:
    def test_reader_of_the_format_gives_keys_and_tensors(self, tmp_path: Path) -> None:
        model = random_model(SMALL)
        metadata = {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["<s>", "é", "b"],
            "tokenizer.ggml.scores": [0.0, -1.5, -2.0],
            "tokenizer.ggml.token_type": [3, 1, 1],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.add_bos_token": True,
        }
        save_model(model, tmp_path / "m.gguf", to="gguf", metadata=metadata)
        reader = gguf.GGUFReader(tmp_path / "m.gguf")
        read = {key: field.contents() for key, field in reader.fields.items()}
        assert metadata.items() <= read.items()
        assert read["general.architecture"] == "llama"
        assert read["llama.attention.sliding_window"] == 5
        assert read["llama.attention.key_length"] == read["llama.rope.dimension_count"] == 32
        assert read["llama.rope.freq_base"] == 30_000.0
        weights = dict(model.named_parameters())
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        assert set(tensors) == {to_gguf(name) for name in weights}
        q = half_to_interleaved(weights["model.layers.1.self_attn.q_proj.weight"], 4)
        assert np.array_equal(tensors["blk.1.attn_q.weight"].data, q.numpy())
        assert tensors["token_embd.weight"].shape.tolist() == [64, 101]  # the fastest axis first

    @pytest.mark.parametrize("name", ["Q8_0", "q4_0", "Q5_1"])
    def test_quantised_matrices_are_those_of_ggufs_own_rounding(self, tmp_path: Path, name: str) -> None:
        model = random_model(SMALL)
        written = save_model(model, tmp_path / "m.gguf", to="gguf", quantization=name)
        kind = gguf.GGMLQuantizationType[name.upper()]
        reader = gguf.GGUFReader(tmp_path / "m.gguf")
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        down = model.model.layers[0].mlp.down_proj.weight.numpy()
        assert tensors["blk.0.ffn_down.weight"].tensor_type == kind
        assert np.array_equal(tensors["blk.0.ffn_down.weight"].data, gguf.quants.quantize(down, kind))
        assert tensors["output_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
        assert written.stored_as == name.upper()
        assert written.n_bytes == sum(tensor.n_bytes for tensor in reader.tensors)

    def test_refuses_what_it_cannot_write(self, tmp_path: Path) -> None:
        model, target = random_model(SMALL), tmp_path / "m.gguf"
        with pytest.raises(InvalidInputError, match=r"Q3_K.*choose Q8_0"):
            save_model(model, target, to="gguf", quantization="Q3_K")
        with pytest.raises(InvalidInputError, match=r"'llama\.block_count' follows from the model"):
            save_model(model, target, to="gguf", metadata={"llama.block_count": 1})
        with pytest.raises(InvalidInputError, match=r"'x\.y' must be text, a number"):
            save_model(model, target, to="gguf", metadata={"x.y": ["a", 1]})
        with pytest.raises(ConfigError, match="windows that differ between layers"):
            save_model(random_model(MIXED), target, to="gguf")
        assert not target.exists()

    def test_refuses_rows_that_do_not_divide_into_blocks(self, tmp_path: Path) -> None:
        odd = random_model(replace(SMALL, hidden_dim=100))
        with pytest.raises(InvalidInputError, match=r"down_proj.*rows of 100 values.*blocks of 32"):
            save_model(odd, tmp_path / "m.gguf", to="gguf", quantization="Q8_0")


class TestDescriptions:
    @pytest.mark.parametrize("config", [SMALL, TIED, MIXED])
    def test_transformers_computes_the_same_logits(self, tmp_path: Path, config: ModelConfig) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        model = random_model(config)
        written = save_model(model, tmp_path / "m", to="hf", metadata={"bos_token_id": 7, "eos_token_id": [8, 9]})
        read = AutoConfig.from_pretrained(tmp_path / "m")
        assert read.rope_parameters["rope_theta"] == config.rope_theta
        assert read.sliding_window == next((w for w in config.windows if w), None)
        assert read.tie_word_embeddings == config.tied_output
        assert read.rms_norm_eps == config.norm_eps
        assert (read.bos_token_id, read.eos_token_id) == (7, [8, 9])
        theirs, loading = AutoModelForCausalLM.from_pretrained(
            tmp_path / "m", output_loading_info=True, attn_implementation="eager"
        )
        assert not loading["missing_keys"]
        assert not loading["unexpected_keys"]
        assert theirs.dtype == torch.float32
        tokens = torch.arange(17) * 37 % config.vocab_size
        with torch.no_grad():
            expected = theirs(tokens[None]).logits[0]
        torch.testing.assert_close(logits_of(model), expected, atol=1e-5, rtol=1e-5)
        assert bool(written.notes) == (config is MIXED)

    def test_config_json_refuses_two_window_sizes_and_keys_of_the_model(self) -> None:
        with pytest.raises(ConfigError, match=r"one sliding_window.*\[4, 5\]"):
            hf_config(replace(SMALL, window_size=(5, 4, None)), torch.float32, {})
        with pytest.raises(InvalidInputError, match="hidden_size follow from the model"):
            hf_config(SMALL, torch.float32, {"hidden_size": 3})

    def test_params_json_always_says_theta_and_lists_mixed_windows(self) -> None:
        assert consolidated_params(SMALL)["sliding_window"] == 5
        assert consolidated_params(MIXED)["sliding_window"] == [5, None, 5]
        assert "sliding_window" not in consolidated_params(TIED)
        assert consolidated_params(TIED)["tied_embeddings"] is True
        assert consolidated_params(SMALL)["rope_theta"] == 30_000.0


class TestCast:
    def test_rounds_to_the_nearest(self) -> None:
        values = torch.randn(1000)
        assert torch.equal(cast("w", values, torch.bfloat16), values.bfloat16())

    def test_refuses_a_value_that_float16_cannot_hold(self) -> None:
        with pytest.raises(CheckpointError, match=r"layers\.0\.w holds 7e\+04, above the largest float16 value"):
            cast("layers.0.w", torch.tensor([[1.0, -70_000.0]]), torch.float16)

    def test_infinities_and_nans_of_the_source_are_the_readers_to_judge(self) -> None:
        odd = torch.tensor([float("inf"), float("nan"), 1.0])
        assert torch.equal(cast("w", odd, torch.float16).isnan(), odd.isnan())

    def test_knows_what_fits(self) -> None:
        assert fits_exactly(torch.tensor([1.0, 0.5]), torch.bfloat16)
        assert not fits_exactly(torch.tensor([1.0, 0.1]), torch.bfloat16)
        assert not fits_exactly(torch.tensor([1e-30]), torch.float16)


class TestTarget:
    @pytest.fixture
    def model(self) -> Transformer:
        return random_model(SMALL)

    @pytest.mark.parametrize(("to", "name"), FORMATS)
    def test_existing_target_is_kept_unless_told(self, tmp_path: Path, model: Transformer, to: str, name: str) -> None:
        target = tmp_path / name
        save_model(model, target, to=to)
        before = _content(target)
        with pytest.raises(StorageError, match="exists already"):
            save_model(random_model(SMALL, seed=1), target, to=to)
        assert _content(target) == before
        save_model(random_model(SMALL, seed=1), target, to=to, overwrite=True)
        assert _content(target) != before
        assert list(tmp_path.iterdir()) == [target]

    def test_empty_folder_may_be_the_target(self, tmp_path: Path, model: Transformer) -> None:
        (tmp_path / "m").mkdir()
        save_model(model, tmp_path / "m")
        assert (tmp_path / "m" / "config.json").exists()

    def test_folder_of_something_else_is_never_replaced(self, tmp_path: Path, model: Transformer) -> None:
        for name in ("thesis.tex", "notes.txt", "sources/main.py"):
            folder = tmp_path / name.replace("/", "-")
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("years of work")
            if name != "notes.txt":
                (folder / "config.json").write_text("{}")  # alone no sign of a checkpoint
            with pytest.raises(StorageError, match="which belongs to no checkpoint"):
                save_model(model, folder, overwrite=True)
            assert (folder / name).read_text() == "years of work"

    def test_symbolic_link_is_followed_not_replaced(self, tmp_path: Path, model: Transformer) -> None:
        save_model(model, tmp_path / "real")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        save_model(random_model(SMALL, seed=1), tmp_path / "link", overwrite=True)
        assert (tmp_path / "link").is_symlink()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_nothing_is_left_after_an_exception(
        self, tmp_path: Path, model: Transformer, error: type[BaseException]
    ) -> None:
        save_model(model, tmp_path / "m")
        before = _content(tmp_path / "m")

        def fail(folder: Path) -> None:
            assert (folder / "model.safetensors").exists()
            raise error

        with pytest.raises(error):
            save_model(random_model(SMALL, seed=1), tmp_path / "m", overwrite=True, extra=fail)
        assert _content(tmp_path / "m") == before
        assert list(tmp_path.iterdir()) == [tmp_path / "m"]

    def test_extra_files_arrive_with_the_weights(self, tmp_path: Path, model: Transformer) -> None:
        save_model(model, tmp_path / "m", extra=lambda folder: _write(folder / "tokenizer.json", "{}"))
        assert (tmp_path / "m" / "tokenizer.json").read_text() == "{}"

    def test_disk_too_small_is_found_out_first(
        self, tmp_path: Path, model: Transformer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2_000))  # type: ignore[attr-defined]
        with pytest.raises(StorageError, match=r"not enough disk space .* KB needed, 2 KB free"):
            save_model(model, tmp_path / "new" / "m")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_read_only_folder_is_an_error_in_one_line(self, tmp_path: Path, model: Transformer) -> None:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            with pytest.raises(StorageError, match=r"cannot write .*Permission denied"):
                save_model(model, tmp_path / "m")
        finally:
            tmp_path.chmod(stat.S_IRWXU)

    def test_a_file_in_the_way_of_the_parents_is_an_error_in_one_line(self, tmp_path: Path, model: Transformer) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            save_model(model, tmp_path / "file" / "m")

    def test_arguments_that_contradict_the_format(self, tmp_path: Path, model: Transformer) -> None:
        for arguments, message in [
            ({"to": "onnx"}, "unknown checkpoint format 'onnx': choose hf, consolidated"),
            ({"to": "gguf"}, r"ends in \.gguf: got"),
            ({"quantization": "Q8_0"}, "only GGUF stores quantised weights"),
            ({"dtype": torch.int8}, "not in int8"),
            ({"to": "consolidated", "metadata": {"bos_token_id": 1}}, "no place for bos_token_id"),
        ]:
            with pytest.raises(InvalidInputError, match=message):
                save_model(model, tmp_path / "m", **arguments)
        for arguments in ({"extra": print}, {"quantization": "Q8_0", "dtype": torch.float16}, {"dtype": torch.int8}):
            with pytest.raises(InvalidInputError):
                save_model(model, tmp_path / "m.gguf", to="gguf", **arguments)
        assert list(tmp_path.iterdir()) == []

    def test_context_managers_tell_folders_from_files(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="is a folder"), new_file(tmp_path, n_bytes=1):
            pass
        _write(tmp_path / "f", "x")
        with pytest.raises(StorageError, match="is a file"), new_folder(tmp_path / "f", n_bytes=1, overwrite=True):
            pass


_WRITE_EACH_FORMAT = """
import resource
from pathlib import Path
from circius.base.errors import StorageError
from circius.base.config import ModelConfig
from circius.weights.init import init_checkpoint

config = ModelConfig(dim=64, n_layers=2, head_dim=32, hidden_dim=96, n_heads=2, n_kv_heads=1, vocab_size=9000,
                     context_len=64)
filler = Path("filler")

def fill_disk(done, total):
    if done and not filler.exists():
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            except OSError:
                pass

def limit_file_size(done, total):
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))

for to, name in FORMATS:
    try:
        init_checkpoint(config, Path(name), to=to, on_progress=on_progress)
    except StorageError as error:
        filler.unlink(missing_ok=True)
        print(to, sorted(path.name for path in Path().iterdir()), error)
"""


def _lines_of_each_format(ran: subprocess.CompletedProcess[str]) -> list[str]:
    lines = ran.stdout.splitlines()
    assert [line.split(" [] ")[0] for line in lines] == [to for to, _ in FORMATS], ran.stdout + ran.stderr[-2000:]
    return lines


def test_write_that_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """A real limit of the operating system stops the write after the check of the free space has passed."""
    program = _WRITE_EACH_FORMAT.replace("on_progress=on_progress", "on_progress=limit_file_size")
    command = [sys.executable, "-c", f"FORMATS = {FORMATS}\n{program}"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert all("cannot write" in line and "nothing was kept" in line for line in _lines_of_each_format(ran))


def test_disk_that_fills_up_under_the_writer(tmp_path: Path) -> None:
    """A small file system of its own, filled by someone else once writing has begun."""
    if not _can_mount():
        pytest.skip("mounting a small file system needs root and unshare")
    (tmp_path / "disk").mkdir()
    program = _WRITE_EACH_FORMAT.replace("on_progress=on_progress", "on_progress=fill_disk")
    script = 'mount -t tmpfs -o size=6m none disk && cd disk && exec "$0" -c "$1"'
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, f"FORMATS = {FORMATS}\n{program}"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert all("no space left while writing" in line for line in _lines_of_each_format(ran))


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _content(path: Path) -> dict[str, bytes]:
    files: Iterator[Path] = iter([path]) if path.is_file() else path.rglob("*")
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def _write(path: Path, text: str) -> None:
    path.write_text(text)
