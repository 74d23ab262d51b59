"""Packed checkpoint folders: written, opened, used in place, unpacked; and what is refused, by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from circius.base.errors import CheckpointError, InvalidInputError, StorageError
from circius.kernels import native
from circius.kernels.packed import PackedMatrix
from circius.weights import load_model, open_checkpoint, write_packed, write_safetensors
from circius.weights.convert import convert
from circius.weights.packed import PackedTensor
from circius.weights.save import save_model
from tests.models import random_tokens
from tests.packed import (
    Weights,
    dense_twin,
    packable_config,
    packed_model,
    plan_of,
    random_weights,
    rounded,
    write_folder,
)

UP = "model.layers.0.mlp.up_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_written_is_read_in_place(tmp_path: Path, tied: bool) -> None:
    config = packable_config(tied=tied)
    folder, weights = write_folder(tmp_path / "m", config), random_weights(config)
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.config, checkpoint.notes, checkpoint.format) == (config, (), "hf")
    assert (checkpoint.is_packed, checkpoint.is_quantised, checkpoint.dtype) == (True, True, torch.float32)
    assert checkpoint.names() == tuple(weights)
    for name, expected in weights.items():
        found = checkpoint.read_packed(name)
        if isinstance(expected, Tensor):
            assert found is None
            assert torch.equal(checkpoint.read(name), expected)
            continue
        assert found is not None
        assert (found.squared_error, found.matrix.n_outputs) == (0, expected.n_outputs)
        assert torch.equal(found.matrix.codes, expected.codes)
        assert torch.equal(found.matrix.scales, expected.scales)
        assert (found.matrix.mins is None) == (expected.mins is None)
        assert torch.equal(checkpoint.read(name), expected.unpack())
        assert torch.equal(checkpoint.read(name, dtype=torch.bfloat16), expected.unpack().bfloat16())
        assert checkpoint.tensors[name].n_bytes == expected.n_bytes
    assert checkpoint.stored_as == "4 bits in groups of 32"


def test_codes_are_aligned_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several files, with weights of odd sizes between: every code at a multiple of 64, and no copy of any."""
    config = packable_config()
    monkeypatch.setattr(write_packed, "split", lambda plan: write_safetensors.split(plan, 6000))
    folder = write_folder(tmp_path / "m", config)
    assert len(list(folder.glob("*.safetensors"))) > 2
    checkpoint = open_checkpoint(folder)
    for tensor in checkpoint.tensors.values():
        if isinstance(tensor, PackedTensor):
            matrix = tensor.packed().matrix
            assert matrix.codes.data_ptr() % 64 == 0
            assert matrix.scales.data_ptr() % 32 == 0
    assert torch.equal(load_model(checkpoint)(random_tokens(5), [5]), packed_model(config)(random_tokens(5), [5]))
    for file in folder.glob("*.safetensors"):  # a reader of other people reads the same tensors
        with safe_open(file, "pt") as opened:
            assert opened.keys()


def test_pages_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    """A copy would not care about a later write to the file."""
    folder = write_folder(tmp_path / "m", packable_config())
    model = load_model(folder)
    file = folder / "packed.safetensors"
    start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(bytes(size - start))
    weights = [buffer for name, buffer in model.named_buffers() if name.endswith(("codes", "scales", "mins"))]
    assert len(weights) > 20
    assert not any(weight.any() for weight in weights)


def test_files_that_other_software_wrote_are_used_all_the_same(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", packable_config())
    expected = load_model(folder)(random_tokens(7), [7])
    file = folder / "packed.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt"})  # in its own order, on its own addresses
    checkpoint = open_checkpoint(folder)
    assert all(
        tensor.packed().matrix.codes.data_ptr() % 64 == 0
        for tensor in checkpoint.tensors.values()
        if isinstance(tensor, PackedTensor)
    )
    assert torch.equal(load_model(checkpoint)(random_tokens(7), [7]), expected)


def test_auto_uses_it_packed_and_says_how(tmp_path: Path) -> None:
    config, notes = packable_config(), list[str]()
    folder = write_folder(tmp_path / "m", config)
    model = load_model(folder, on_note=notes.append, activations="float")
    assert model.is_packed
    assert len(notes) == 1
    assert "(4 bits in groups of 32, 8 bits in groups of 32) are used as they are" in notes[0]
    assert "activations in float32" in notes[0]
    tokens = random_tokens(8)
    torch.testing.assert_close(model(tokens, [8]), dense_twin(config)(tokens, [8]), atol=2e-5, rtol=0)
    with native.disabled():
        notes.clear()
        assert load_model(folder, on_note=notes.append).is_packed
        assert "no native kernels" in notes[0]
        assert "activations in float32" in notes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_explicit_dtype_unpacks_and_says_so(tmp_path: Path, dtype: torch.dtype) -> None:
    config, notes = packable_config(), list[str]()
    model = load_model(write_folder(tmp_path / "m", config), dtype=dtype, on_note=notes.append)
    assert not model.is_packed
    for (name, ours), theirs in zip(model.named_parameters(), dense_twin(config).parameters(), strict=True):
        assert torch.equal(ours, theirs.to(dtype)), name
    assert notes == [
        f"the weights (4 bits in groups of 32) are unpacked to {str(dtype).removeprefix('torch.')}, as asked"
    ]


def test_progress_reaches_the_whole_when_written_and_when_read(tmp_path: Path) -> None:
    for run in (
        lambda seen: write_folder(tmp_path / "m", packable_config(), on_progress=lambda *at: seen.append(at)),
        lambda seen: load_model(tmp_path / "m", on_progress=lambda *at: seen.append(at)),
    ):
        seen: list[tuple[int, int]] = []
        run(seen)
        assert seen == sorted(seen)
        assert seen[-1] == (open_checkpoint(tmp_path / "m").n_bytes,) * 2


def test_config_json_says_what_it_is(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", packable_config(), metadata={"eos_token_id": 2})
    described = json.loads((folder / "config.json").read_text())
    assert described["quantization_config"] == {"quant_method": "circius", "version": 1, "bits": 4}
    assert described["eos_token_id"] == 2


def test_other_software_is_told_that_it_cannot_load_it(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(write_folder(tmp_path / "m", packable_config()))


@pytest.mark.parametrize(("to", "name"), [("hf", "out"), ("consolidated", "out"), ("gguf", "out.gguf")])
def test_convert_writes_the_values_and_says_so(tmp_path: Path, to: str, name: str) -> None:
    config = packable_config()
    written = convert(write_folder(tmp_path / "m", config), tmp_path / name, to=to)
    assert written.notes[0] == (
        "packed weights (4 bits in groups of 32) have a place in no other layout: written as float32"
    )
    assert not open_checkpoint(tmp_path / name).is_quantised
    for ours, theirs in zip(load_model(tmp_path / name).parameters(), dense_twin(config).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_packed_model_in_memory_is_saved_as_its_values(tmp_path: Path) -> None:
    config = packable_config()
    save_model(packed_model(config), tmp_path / "m")
    for ours, theirs in zip(load_model(tmp_path / "m").parameters(), dense_twin(config).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def change(state: dict[str, Tensor], name: str, edit: Callable[[Tensor], Tensor]) -> None:
    state[name] = edit(state[name]).contiguous()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda s: s.pop(f"{UP}.scales"), f"{UP}.codes has no {UP}.scales beside it"),
        (lambda s: s.pop(f"{UP}.codes"), f"has no {UP}.codes beside it"),
        (lambda s: change(s, f"{UP}.codes", lambda x: x[:-1]), "must have (4, 4, 64)"),
        (lambda s: change(s, f"{UP}.codes", lambda x: x[..., :32]), f"{UP}.codes has shape (4, 4, 32)"),
        (lambda s: change(s, f"{UP}.codes", lambda x: x.short()), "is stored as int16; codes are uint8"),
        (lambda s: change(s, f"{UP}.codes", lambda x: x.view(torch.int8)), "a matrix of shape (64, 32) in 8 bits"),
        (lambda s: change(s, f"{UP}.scales", lambda x: x.float()), "in float32; for 32 inputs it must be (4, groups"),
        (lambda s: change(s, f"{UP}.scales", lambda x: x[:2]), f"{UP}.scales has shape (2, 1, 16)"),
        (lambda s: change(s, f"{DOWN}.scales", lambda x: x.repeat(1, 2, 1)), "groups of a multiple of 32 inputs"),
        (lambda s: change(s, f"{UP}.scales", lambda x: x[0]), f"{UP}.scales has shape (1, 16)"),
        (lambda s: change(s, f"{UP}.mins", lambda x: x.bfloat16()), "in bfloat16 does not fit: minima are like"),
        (lambda s: s.update({f"{UP}": torch.ones(64, 32)}), f"{UP} is there both packed"),
        (lambda s: s.update({"x.weight.codes": torch.ones(2, 4, 64)}), "this model has no matrix x.weight"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, break_it: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    folder = write_folder(tmp_path / "m", packable_config())
    file = folder / "packed.safetensors"
    state = load_file(file)
    break_it(state)
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", packable_config())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["version"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="version 2 of circius's format, this circius reads version 1"):
        open_checkpoint(folder)


class TestWriter:
    def write(self, target: Path, weights: Weights, **more: object) -> None:
        arguments = {"quantization": {"bits": 4}} | more
        write_packed.write_packed(target, packable_config(), plan_of(weights), weights.values(), **arguments)  # type: ignore[arg-type]

    def test_says_what_was_written(self, tmp_path: Path) -> None:
        weights = random_weights(packable_config())
        written = write_packed.write_packed(
            tmp_path / "m", packable_config(), plan_of(weights), weights.values(), quantization={}
        )
        assert (written.path, written.layout, written.stored_as) == (tmp_path / "m", "hf", "4 bits in groups of 32")
        assert (written.n_tensors, written.n_bytes) == (len(weights), open_checkpoint(tmp_path / "m").n_bytes)

    def test_takes_one_weight_at_a_time(self, tmp_path: Path) -> None:
        weights, asked = random_weights(packable_config()), list[str]()

        def one_by_one() -> object:
            for name, weight in weights.items():
                asked.append(name)
                yield weight

        write_packed.write_packed(
            tmp_path / "m",
            packable_config(),
            plan_of(weights),
            one_by_one(),  # type: ignore[arg-type]
            quantization={},
            on_progress=lambda done, total: asked.append("-"),
        )
        assert asked == [step for name in weights for step in ("-", name)] + ["-"]

    def test_leaves_nothing_behind_when_it_is_interrupted(self, tmp_path: Path) -> None:
        weights = random_weights(packable_config())

        def broken() -> object:
            yield next(iter(weights.values()))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_packed.write_packed(
                tmp_path / "m",
                packable_config(),
                plan_of(weights),
                broken(),  # type: ignore[arg-type]
                quantization={},
            )
        assert list(tmp_path.iterdir()) == []

    def test_replaces_nothing_unless_asked(self, tmp_path: Path) -> None:
        weights = random_weights(packable_config())
        self.write(tmp_path / "m", weights)
        with pytest.raises(StorageError, match="exists already"):
            self.write(tmp_path / "m", weights)
        self.write(tmp_path / "m", weights, overwrite=True)

    @pytest.mark.parametrize("packed", [rounded(torch.randn(32, 64), group=64), rounded(torch.randn(32, 64), bits=8)])
    def test_any_group_and_bits(self, tmp_path: Path, packed: PackedMatrix) -> None:
        weights = random_weights(packable_config()) | {DOWN: packed}
        self.write(tmp_path / "m", weights)
        assert torch.equal(open_checkpoint(tmp_path / "m").read(DOWN), packed.unpack())

    def test_refuses_a_plan_that_is_not_of_this_model(self, tmp_path: Path) -> None:
        weights = random_weights(packable_config())
        weights.pop(UP)
        with pytest.raises(InvalidInputError, match=r"the plan has 20 weights, the model 21.*up_proj"):
            self.write(tmp_path / "m", weights)

    @pytest.mark.parametrize(
        "changes",
        [
            {"bits": 5},
            {"bits": 8, "has_mins": True},
            {"group": 16},
            {"group": 96},
            {"dtype": torch.float32},
            {"name": "model.norm.weight", "shape": (32,)},
        ],
    )
    def test_refuses_what_no_packed_matrix_can_be(self, tmp_path: Path, changes: dict[str, object]) -> None:
        plan = plan_of(random_weights(packable_config()))
        name = changes.get("name", DOWN)
        plan = [one._replace(**{"bits": 4, "group": 32, "dtype": torch.float16} | changes) if one.name == name else one
                for one in plan]  # fmt: skip
        with pytest.raises(InvalidInputError, match="cannot be packed"):
            write_packed.write_packed(tmp_path / "m", packable_config(), plan, [], quantization={})

    def test_refuses_to_replace_the_formats_own_fields(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="quant_method"):
            self.write(tmp_path / "m", random_weights(packable_config()), quantization={"quant_method": "x"})
