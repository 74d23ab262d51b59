"""Hugging Face folders: every way in which transformers writes them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError
from circius.weights import KEEP, Checkpoint, open_checkpoint
from circius.weights.hf_config import read_hf_config
from circius.weights.pickles import PickledTensor
from circius.weights.stored import RawTensor
from tests.models import tiny_config
from tests.unit.weights.files import hf_json, random_state, write_hf, write_json


def assert_holds(checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> None:
    assert set(checkpoint.names()) == set(state)
    for name, value in state.items():
        assert torch.equal(checkpoint.read(name), value), name
    assert checkpoint.n_bytes == sum(value.nbytes for value in state.values())


def transformers_model(**changes: Any) -> MistralForCausalLM:
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "sliding_window": 5,
    }
    return MistralForCausalLM(MistralConfig(**(sizes | changes)))


@pytest.mark.parametrize("shard_size", ["1GB", "8KB"])
@pytest.mark.parametrize("tied", [False, True])
def test_reads_what_transformers_saves(tmp_path: Path, shard_size: str, tied: bool) -> None:
    model = transformers_model(
        tie_word_embeddings=tied, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    )
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "8KB")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == ModelConfig(
        dim=32,
        n_layers=2,
        head_dim=8,
        hidden_dim=48,
        n_heads=4,
        n_kv_heads=2,
        vocab_size=61,
        context_len=64,
        window_size=5,
        rope_theta=1e6,
        norm_eps=1e-5,
        tied_output=tied,
    )
    state = model.state_dict()
    if tied:
        del state["lm_head.weight"]
    assert_holds(checkpoint, state)
    assert checkpoint.format == "hf"
    assert checkpoint.notes == ()


def test_reads_a_llama(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.config.window_size, checkpoint.config.n_kv_heads) == (None, 4)
    assert checkpoint.config.norm_eps == 1e-6
    assert_holds(checkpoint, model.state_dict())


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_bin_files(tmp_path: Path, shards: int, zipped: bool) -> None:
    config = tiny_config()
    state = random_state(config, torch.bfloat16)
    state_with_table = state | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4)}
    write_json(tmp_path / "config.json", hf_json(config))
    names = list(state_with_table)
    weight_map = {}
    for index in range(shards):
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{index + 1:05}-of-{shards:05}.bin"
        part = {name: state_with_table[name] for name in names[index::shards]}
        torch.save(part, tmp_path / file, _use_new_zipfile_serialization=zipped)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        write_json(tmp_path / "pytorch_model.bin.index.json", {"weight_map": weight_map})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.dtype == torch.bfloat16
    assert_holds(checkpoint, state)
    assert {type(tensor) for tensor in checkpoint.tensors.values()} == {RawTensor if zipped else PickledTensor}
    name = names[0]
    assert torch.equal(checkpoint.read(name, dtype=torch.float32), state[name].float())


def test_a_bin_holding_parameters_that_share_memory_or_are_transposed(tmp_path: Path) -> None:
    config = tiny_config()
    state = random_state(config)
    name = "model.layers.1.mlp.down_proj.weight"
    odd: dict[str, torch.Tensor] = dict(state)
    odd[name] = torch.nn.Parameter(state[name].t().contiguous().t())
    both = torch.cat([state["model.embed_tokens.weight"], state["lm_head.weight"]])
    odd["model.embed_tokens.weight"], odd["lm_head.weight"] = both.split(config.vocab_size)
    write_json(tmp_path / "config.json", hf_json(config))
    torch.save(odd, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, state)
    assert checkpoint.read(name).is_contiguous()
    assert [n for n, tensor in checkpoint.tensors.items() if isinstance(tensor, PickledTensor)] == [name]
    assert torch.equal(checkpoint.read("lm_head.weight", dtype=torch.float64), state["lm_head.weight"].double())


def test_safetensors_are_preferred_and_the_choice_is_told(tmp_path: Path) -> None:
    config = tiny_config()
    state = random_state(config)
    write_hf(tmp_path, config, state)
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, state)
    assert any("model.safetensors is read" in note and "pytorch_model.bin" in note for note in checkpoint.notes)


def test_writing_to_a_view_leaves_the_file_alone(tmp_path: Path) -> None:
    state = random_state(tiny_config())
    checkpoint = open_checkpoint(write_hf(tmp_path, tiny_config(), state))
    name = "model.norm.weight"
    checkpoint.read(name).fill_(7.0)
    assert torch.equal(checkpoint.read(name), state[name])


def test_values_that_do_not_lie_on_their_multiples_are_read_right(tmp_path: Path) -> None:
    state = random_state(tiny_config())
    write_hf(tmp_path, tiny_config(), state)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    file.write_bytes((length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :])
    assert_holds(open_checkpoint(tmp_path), state)


def read_config(tmp_path: Path, **changes: Any) -> tuple[ModelConfig, list[str]]:
    return read_hf_config(write_json(tmp_path / "config.json", hf_json(tiny_config(), **changes)))


def test_layer_types_give_windows_to_layers(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"]
    config, _ = read_config(tmp_path, model_type="ministral", architectures=["MinistralForCausalLM"], layer_types=kinds)
    assert config.windows == (None, 5)
    config, _ = read_config(tmp_path, layer_types=["sliding_attention"] * 2)
    assert config.window_size == 5


@pytest.mark.parametrize(
    ("changes", "field", "value", "note"),
    [
        ({"rms_norm_eps": "absent"}, "norm_eps", 1e-6, "1e-6"),
        ({"rope_theta": "absent"}, "rope_theta", 1e4, "10000"),
        ({"sliding_window": "absent"}, "window_size", 4096, "4096"),
        ({"num_key_value_heads": None}, "n_kv_heads", 4, "num_key_value_heads"),
    ],
)
def test_defaults_are_those_of_transformers_and_told(
    tmp_path: Path, changes: dict[str, Any], field: str, value: object, note: str
) -> None:
    config, notes = read_config(tmp_path, **changes)
    assert getattr(config, field) == value
    assert len(notes) == 1
    assert note in notes[0]


def test_defaults_equal_the_classes_of_transformers() -> None:
    config = MistralConfig()
    assert (config.rms_norm_eps, config.sliding_window) == (1e-6, 4096)
    assert config.rope_parameters["rope_theta"] == 1e4


def test_a_null_window_and_a_null_head_dim(tmp_path: Path) -> None:
    config, notes = read_config(tmp_path, sliding_window=None, head_dim=None)
    assert (config.window_size, config.head_dim, notes) == (None, 8, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mixtral"}, "model_type is 'mixtral'"),
        ({"model_type": "absent"}, "model_type is None"),
        ({"architectures": ["MistralForSequenceClassification"]}, "MistralForSequenceClassification"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling is"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters is"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters is"),
        ({"rope_parameters": 3}, "rope_parameters is 3"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"mlp_bias": True}, "mlp_bias is true"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"'),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is"),
        ({"num_local_experts": 8}, "num_local_experts is 8"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_size": "absent"}, "the field 'hidden_size' is missing"),
        ({"num_key_value_heads": "absent"}, "the field 'num_key_value_heads' is missing"),
        ({"num_key_value_heads": 3}, "n_heads must be a multiple of n_kv_heads, got 4 and 3"),
        ({"hidden_size": 32.5}, "hidden_size must be a whole number, got 32.5"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number, got 'many'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be from 1 to 10000"),
        ({"num_attention_heads": 0}, "num_attention_heads must be positive"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number, got 'small'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"layer_types": ["full_attention"]}, "layer_types must name one of"),
        ({"layer_types": ["chunked_attention"] * 2}, "layer_types must name one of"),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": None}, "there is no sliding_window"),
        ({"model_type": "llama", "sliding_window": 5}, "llama has no window"),
    ],
)
def test_what_is_not_implemented_or_wrong_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path, **changes)
    assert message in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_tied_model_may_repeat_its_embedding_but_nothing_else(tmp_path: Path) -> None:
    config = tiny_config(tied=True)
    state = random_state(config)
    embedding = state["model.embed_tokens.weight"]
    write_hf(tmp_path, config, state | {"lm_head.weight": embedding.clone()})
    assert_holds(open_checkpoint(tmp_path), state)
    write_hf(tmp_path, config, state | {"lm_head.weight": embedding + 1})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight .* differs from model\.embed_tokens\.weight"):
        open_checkpoint(tmp_path)


def test_overrides_replace_and_are_told(tmp_path: Path) -> None:
    write_hf(tmp_path, tiny_config(window=5), random_state(tiny_config()))
    for window, expected in ((KEEP, 5), (None, None), (9, 9)):
        checkpoint = open_checkpoint(tmp_path, window=window)
        assert checkpoint.config.window_size == expected
        assert bool(checkpoint.notes) == (window is not KEEP)
    checkpoint = open_checkpoint(tmp_path, rope_theta=1e6)
    assert checkpoint.config.rope_theta == 1e6
    assert checkpoint.notes == ("rope_theta is 1e+06 as asked, instead of 10000",)


def test_mixed_dtypes_report_the_one_that_holds_most(tmp_path: Path) -> None:
    state = random_state(tiny_config(), torch.float16)
    state["model.norm.weight"] = state["model.norm.weight"].float()
    write_json(tmp_path / "config.json", hf_json(tiny_config()))
    save_file(state, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.dtype == torch.float16
    assert checkpoint.read("model.norm.weight").dtype == torch.float32
