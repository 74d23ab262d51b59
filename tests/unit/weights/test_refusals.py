"""Damaged and dangerous files: each gets one clear error, and nothing but a CirciusError ever comes out."""

import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from circius.base.errors import CheckpointError, CirciusError, ConfigError, ModelNotFoundError
from circius.weights import load_model, open_checkpoint
from tests.models import tiny_config
from tests.unit.weights.files import (
    hf_json,
    params_json,
    random_state,
    write_consolidated,
    write_gguf,
    write_hf,
    write_json,
)

CONFIG = tiny_config()
STATE = random_state(CONFIG)


def refusal(path: Path, error: type[CirciusError] = CheckpointError) -> str:
    with pytest.raises(error) as caught:
        load_model(path)
    return str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "absent", ModelNotFoundError)


def test_an_empty_folder_lists_what_was_looked_for(tmp_path: Path) -> None:
    message = refusal(tmp_path, ModelNotFoundError)
    for name in ("config.json", "model.safetensors", "params.json", "consolidated.00.pth", ".gguf"):
        assert name in message


def test_several_ggufs_are_a_choice_for_the_caller(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, CONFIG, STATE)
    assert "name one of them: a.gguf, b.gguf" in refusal(tmp_path, ModelNotFoundError)
    (tmp_path / "b.gguf").unlink()
    assert open_checkpoint(tmp_path).path == tmp_path / "a.gguf"


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    write_hf(tmp_path, CONFIG, STATE)
    assert "name the folder" in refusal(tmp_path / "model.safetensors", ModelNotFoundError)


def test_weights_without_a_configuration(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert "neither config.json nor params.json" in refusal(tmp_path)


@pytest.mark.parametrize(("name", "values"), [("config.json", hf_json(CONFIG)), ("params.json", params_json(CONFIG))])
def test_a_configuration_without_weights(tmp_path: Path, name: str, values: dict[str, Any]) -> None:
    write_json(tmp_path / name, values)
    message = refusal(tmp_path)
    assert f"has {name} but no weights" in message
    assert ".safetensors" in message


@pytest.mark.parametrize("name", ["config.json", "params.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\xfe{", b"[" * 100_000, b'{"dim": ' + b"9" * 5000 + b"}"])
def test_a_configuration_that_is_no_json_object(tmp_path: Path, name: str, content: bytes) -> None:
    save_file(STATE, tmp_path / ("model.safetensors" if name == "config.json" else "consolidated.safetensors"))
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refusal(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, -5000])
def test_truncated_safetensors(tmp_path: Path, keep: int) -> None:
    write_hf(tmp_path, CONFIG, STATE)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    message = refusal(tmp_path)
    assert str(file) in message
    assert "truncated" in message


def test_safetensors_with_bytes_to_spare(tmp_path: Path) -> None:
    write_hf(tmp_path, CONFIG, STATE)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"\0")
    assert "damaged: the header promises" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "takes 8 bytes, but the header gives it 4"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "starts at byte"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "is damaged"),
        ({"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}, "is damaged"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "is damaged"),
        ({"dtype": "Q3", "shape": [2], "data_offsets": [0, 8]}, "has dtype 'Q3'"),
        ({"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}, "is damaged"),
        (7, "is damaged"),
    ],
)
def test_a_safetensors_header_that_lies(tmp_path: Path, entry: object, message: str) -> None:
    write_json(tmp_path / "config.json", hf_json(CONFIG))
    header = json.dumps({"model.norm.weight": entry}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    found = refusal(tmp_path)
    assert message in found
    assert str(file) in found
    assert "model.norm.weight" in found


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_hf(tmp_path, CONFIG, STATE, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert "1 of the 3 files that model.safetensors.index.json lists are missing: model-00002" in refusal(tmp_path)


def test_a_shard_that_lacks_what_the_index_promises(tmp_path: Path) -> None:
    write_hf(tmp_path, CONFIG, STATE, shards=2)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    names = list(STATE)[:3]
    save_file({name: STATE[name] for name in names}, shard)
    message = refusal(tmp_path)
    assert f"{shard}: the index says that it holds " in message


def test_a_shard_that_holds_more_than_the_index_says(tmp_path: Path) -> None:
    write_hf(tmp_path, CONFIG, STATE, shards=2)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    del weight_map["model.norm.weight"]
    write_json(index, {"weight_map": weight_map})
    assert "holds model.norm.weight, of which the index says nothing" in refusal(tmp_path)


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "/etc/passwd", "..", "", 3, None])
def test_an_index_cannot_point_outside_the_folder(tmp_path: Path, shard: object) -> None:
    write_json(tmp_path / "config.json", hf_json(CONFIG))
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"model.norm.weight": shard}})
    assert "which is no file of this folder" in refusal(tmp_path)


@pytest.mark.parametrize("weight_map", [None, [], {}, "x"])
def test_an_index_without_a_map(tmp_path: Path, weight_map: object) -> None:
    write_json(tmp_path / "config.json", hf_json(CONFIG))
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": weight_map})
    assert "has no weight_map" in refusal(tmp_path)


Write = Callable[[Path, dict[str, torch.Tensor]], Path]
WRITERS: list[tuple[str, Write]] = [
    ("model.layers.1.mlp.up_proj.weight", lambda folder, state: write_hf(folder, CONFIG, state)),
    (
        "layers.1.feed_forward.w3.weight",
        lambda folder, state: write_consolidated(folder, CONFIG, state, file="consolidated.00.pth"),
    ),
    ("blk.1.ffn_up.weight", lambda folder, state: write_gguf(folder / "m.gguf", CONFIG, state)),
]
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(("own_name", "write"), WRITERS, ids=["hf", "consolidated", "gguf"])
class TestTensorsOfTheWrongKind:
    def test_missing(self, tmp_path: Path, own_name: str, write: Write) -> None:
        path = write(tmp_path, {name: value for name, value in STATE.items() if name != NAME})
        message = refusal(path)
        assert f"{own_name} of shape (48, 32) is missing; 20 of 21 expected weights were found" in message
        assert str(path) in message

    def test_shape(self, tmp_path: Path, own_name: str, write: Write) -> None:
        path = write(tmp_path, STATE | {NAME: torch.zeros(48, 31)})
        message = refusal(path)
        assert f"{own_name} has shape (48, 31); by " in message
        assert "must have shape (48, 32)" in message
        assert str(path) in message

    def test_unexpected(self, tmp_path: Path, own_name: str, write: Write) -> None:
        path = write(tmp_path, STATE | {"model.layers.2.mlp.up_proj.weight": STATE[NAME].clone()})
        message = refusal(path)
        assert f"{own_name.replace('1', '2', 1)} of shape (48, 32) has no place in this model of 2 layers" in message

    def test_vocabulary(self, tmp_path: Path, own_name: str, write: Write) -> None:
        path = write(tmp_path, STATE | {"model.embed_tokens.weight": torch.zeros(60, 32)})
        message = refusal(path)
        assert "60" in message
        assert "61" in message
        assert "emb" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn, torch.bool])
def test_a_weight_of_no_float(tmp_path: Path, dtype: torch.dtype) -> None:
    write_hf(tmp_path, CONFIG, STATE | {NAME: torch.zeros(48, 32, dtype=dtype)})
    assert f"{NAME} is stored as {str(dtype)[6:]}; a weight can be float32" in refusal(tmp_path)


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "consolidated.00.pth"])
@pytest.mark.parametrize("packed", ["zip", "legacy", "plain"])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, file: str, packed: str) -> None:
    trace = tmp_path / "trace"
    write_json(tmp_path / "config.json", hf_json(CONFIG))
    if file.startswith("cons"):
        (tmp_path / "config.json").unlink()
        write_json(tmp_path / "params.json", params_json(CONFIG))
    bomb = {"model.norm.weight": Bomb(trace)}
    if packed == "plain":
        (tmp_path / file).write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, tmp_path / file, _use_new_zipfile_serialization=packed == "zip")
    message = refusal(tmp_path)
    assert "holds code" in message
    assert ".system" in message
    assert str(tmp_path / file) in message
    assert not trace.exists()


def bin_folder(folder: Path, content: object) -> Path:
    write_json(folder / "config.json", hf_json(CONFIG))
    torch.save(content, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99])
def test_a_truncated_bin(tmp_path: Path, keep: float) -> None:
    file = bin_folder(tmp_path, STATE) / "pytorch_model.bin"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    message = refusal(tmp_path)
    assert f"{file}: truncated, damaged, or not written by torch.save" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"a": {"b": torch.zeros(2)}}, "the entry 'a' is a dict"),
        ({3: torch.zeros(2)}, "the entry 3 is a Tensor"),
        ({"a": torch.zeros(2).to_sparse()}, "the entry 'a' is a Tensor"),
    ],
)
def test_a_bin_of_something_else(tmp_path: Path, content: object, message: str) -> None:
    assert message in refusal(bin_folder(tmp_path, content))


def test_a_bin_that_was_packed_again(tmp_path: Path) -> None:
    file = bin_folder(tmp_path, STATE) / "pytorch_model.bin"
    with zipfile.ZipFile(file) as source:
        records = [(name, source.read(name)) for name in source.namelist()]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in records:
            target.writestr(name, content)
    assert "is compressed, which torch.save never does" in refusal(tmp_path)


@pytest.mark.parametrize("keep", [0, 2, 20, 500, -1, -5000])
def test_a_truncated_gguf(tmp_path: Path, keep: int) -> None:
    file = write_gguf(tmp_path / "m.gguf", CONFIG, STATE)
    file.write_bytes(file.read_bytes()[:keep])
    assert str(file) in refusal(file)


def test_a_gguf_that_promises_a_list_without_end(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", CONFIG, STATE)
    content = bytearray(file.read_bytes())
    at = content.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 4
    content[at : at + 4] = (0).to_bytes(4, "little")  # bytes instead of strings
    content[at + 4 : at + 12] = (2**60).to_bytes(8, "little")
    file.write_bytes(content)
    assert "bytes are promised" in refusal(file)


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"GGML", "no GGUF file"), (b"GGUF\x01\0\0\0", "GGUF version 1"), (b"GGUF\0\0\0\x03", "version")],
)
def test_a_gguf_of_another_kind(tmp_path: Path, start: bytes, message: str) -> None:
    file = write_gguf(tmp_path / "m.gguf", CONFIG, STATE)
    file.write_bytes(start + file.read_bytes()[len(start) :])
    assert message in refusal(file)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_that_cannot_be(tmp_path: Path, window: int) -> None:
    write_hf(tmp_path, CONFIG, STATE)
    with pytest.raises(ConfigError, match="window_size must be a positive whole number"):
        open_checkpoint(tmp_path, window=window)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    write_hf(tmp_path, CONFIG, STATE)
    (tmp_path / "model.safetensors").chmod(0)
    assert "cannot be read" in refusal(tmp_path)


@cache
def pristine(form: str) -> bytes:
    """The one weight file of a tiny checkpoint."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        if form == "gguf":
            return write_gguf(path / "m.gguf", CONFIG, STATE).read_bytes()
        if form == "safetensors":
            return (write_hf(path, CONFIG, STATE) / "model.safetensors").read_bytes()
        return (bin_folder(path, STATE) / "pytorch_model.bin").read_bytes()


@pytest.mark.parametrize("form", ["safetensors", "gguf", "bin"])
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_of_any_kind_is_survived(form: str, data: st.DataObject) -> None:
    content = bytearray(pristine(form))
    # headers are at the front, a zip's directory at the end
    places = st.one_of(st.integers(0, 4000), st.integers(len(content) - 4000, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    with TemporaryDirectory() as folder:
        path = Path(folder)
        names = {"safetensors": "model.safetensors", "gguf": "m.gguf", "bin": "pytorch_model.bin"}
        (path / names[form]).write_bytes(content)
        if form != "gguf":
            write_json(path / "config.json", hf_json(CONFIG))
        with contextlib.suppress(CirciusError):
            load_model(path, check_finite=False)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([("config.json", hf_json), ("params.json", params_json)]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=4,
    ),
    st.data(),
)
def test_any_value_in_a_configuration_is_survived(
    form: tuple[str, Callable[..., dict[str, Any]]], value: object, data: st.DataObject
) -> None:
    name, describe = form
    fields = describe(CONFIG)
    optional = ["rope_scaling", "rope_parameters", "layer_types", "_sliding_window", "moe", "max_seq_len"]
    fields[data.draw(st.sampled_from([*fields, *optional]))] = value
    with TemporaryDirectory() as folder:
        path = Path(folder)
        write_hf(path, CONFIG, STATE)
        if name == "params.json":
            (path / "model.safetensors").unlink()
            (path / "config.json").unlink()
            write_consolidated(path, CONFIG, STATE)
        write_json(path / name, fields)
        with contextlib.suppress(CirciusError):
            open_checkpoint(path)
