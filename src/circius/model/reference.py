"""Mistral 7B in one slow, obvious file: the specification that the package is tested against.

It imports nothing of circius and runs by itself on a Hugging Face checkpoint folder:

    python reference.py FOLDER "My favourite condiment is"

One sequence, float32, loops where loops are clearer. Read it from top to bottom: the window, the layers, the rolling
buffer, pre-fill in chunks, greedy decoding. Section numbers are those of the paper (arXiv 2310.06825).
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""By the names of a Hugging Face checkpoint, each matrix as (outputs, inputs)."""


@dataclass(frozen=True)
class Config:
    """Table 1 (section 2). `window_size` None means full causal attention."""

    dim: int
    n_layers: int
    head_dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    window_size: int | None
    rope_theta: float
    norm_eps: float

    @staticmethod
    def from_folder(folder: Path) -> "Config":
        """Reads config.json, and fails on a key that the model cannot do without."""
        fields: dict[str, Any] = json.loads((folder / "config.json").read_text())
        rope = fields.get("rope_parameters") or fields  # transformers 5 moved the theta there
        return Config(
            dim=fields["hidden_size"],
            n_layers=fields["num_hidden_layers"],
            head_dim=fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"],
            hidden_dim=fields["intermediate_size"],
            n_heads=fields["num_attention_heads"],
            n_kv_heads=fields["num_key_value_heads"],
            vocab_size=fields["vocab_size"],
            window_size=fields.get("sliding_window"),
            rope_theta=rope["rope_theta"],
            norm_eps=fields["rms_norm_eps"],
        )


# --- the window (section 2, "Sliding Window Attention") ---------------------------------------------------------------


def sees(query: int, key: int, window: int | None) -> bool:
    """Whether the token at position `query` attends to the one at `key`: itself and the W - 1 before it."""
    if key > query:
        return False
    return window is None or key > query - window


# --- the rolling buffer cache (section 2, "Rolling Buffer Cache") -----------------------------------------------------


class RollingBuffer:
    """The keys and values of one layer: position p is kept in slot p mod W until position p + W takes its place."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.slots: dict[int, tuple[int, Tensor, Tensor]] = {}

    def write(self, position: int, key: Tensor, value: Tensor) -> None:
        slot = position if self.window is None else position % self.window
        self.slots[slot] = (position, key, value)

    def read(self) -> list[tuple[int, Tensor, Tensor]]:
        """What is held now, as (position, key (K, D), value (K, D)), in no particular order: attention needs none."""
        return list(self.slots.values())


# --- the layers -------------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, position: int, theta: float) -> Tensor:
    """Turns each head of `x` (heads, D): the pair (x[i], x[i + D/2]) by the angle position * theta ** (-2 i / D)."""
    half = x.shape[-1] // 2
    angles = torch.tensor([position * theta ** (-2 * i / x.shape[-1]) for i in range(half)], dtype=torch.float64)
    cos, sin = angles.cos().float(), angles.sin().float()
    first, second = x[:, :half], x[:, half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(
    x: Tensor, weights: Weights, layer: str, positions: list[int], buffer: RollingBuffer, c: Config
) -> Tensor:
    """Attention of a chunk `x` (T, E) to the buffer and to itself; then the chunk goes into the buffer."""
    queries = (x @ weights[f"{layer}.self_attn.q_proj.weight"].T).view(-1, c.n_heads, c.head_dim)
    keys = (x @ weights[f"{layer}.self_attn.k_proj.weight"].T).view(-1, c.n_kv_heads, c.head_dim)
    values = (x @ weights[f"{layer}.self_attn.v_proj.weight"].T).view(-1, c.n_kv_heads, c.head_dim)
    chunk = [
        (position, rotate(key, position, c.rope_theta), value)
        for position, key, value in zip(positions, keys, values, strict=True)
    ]
    # The buffer is read before the chunk is written, so that no chunk, however long, overwrites what it still needs.
    memory = buffer.read() + chunk
    mixed = []
    for position, query in zip(positions, queries, strict=True):
        seen = [(key, value) for at, key, value in memory if sees(position, at, c.window_size)]
        key, value = (torch.stack(part) for part in zip(*seen, strict=True))  # each (S, K, D)
        turned = rotate(query, position, c.rope_theta)
        heads = []
        for h in range(c.n_heads):
            kv = h // (c.n_heads // c.n_kv_heads)  # grouped-query attention: neighbours share a key-value head
            scores = key[:, kv] @ turned[h] / math.sqrt(c.head_dim)
            heads.append(torch.softmax(scores, dim=0) @ value[:, kv])
        mixed.append(torch.cat(heads))
    for position, key, value in chunk:
        buffer.write(position, key, value)
    return torch.stack(mixed) @ weights[f"{layer}.self_attn.o_proj.weight"].T


def feed_forward(x: Tensor, weights: Weights, layer: str) -> Tensor:
    gate = x @ weights[f"{layer}.mlp.gate_proj.weight"].T
    up = x @ weights[f"{layer}.mlp.up_proj.weight"].T
    return (torch.nn.functional.silu(gate) * up) @ weights[f"{layer}.mlp.down_proj.weight"].T


# --- the model --------------------------------------------------------------------------------------------------------


class Model:
    """The weights, and one rolling buffer a layer for the one sequence that is being read or written."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = config
        self.weights = {name: tensor.float() for name, tensor in weights.items()}
        self.buffers = [RollingBuffer(config.window_size) for _ in range(config.n_layers)]
        self.position = 0

    @staticmethod
    def from_folder(folder: Path) -> "Model":
        from safetensors.torch import load_file

        weights: Weights = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= load_file(file)
        return Model(Config.from_folder(folder), weights)

    def forward(self, tokens: list[int]) -> Tensor:
        """The logits (T, V) of the next T tokens of the sequence."""
        c, weights = self.config, self.weights
        positions = list(range(self.position, self.position + len(tokens)))
        x = weights["model.embed_tokens.weight"][tokens]
        for i in range(c.n_layers):
            layer = f"model.layers.{i}"
            normed = rms_norm(x, weights[f"{layer}.input_layernorm.weight"], c.norm_eps)
            x = x + attention(normed, weights, layer, positions, self.buffers[i], c)
            normed = rms_norm(x, weights[f"{layer}.post_attention_layernorm.weight"], c.norm_eps)
            x = x + feed_forward(normed, weights, layer)
        self.position += len(tokens)
        output = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])  # absent: tied
        return rms_norm(x, weights["model.norm.weight"], c.norm_eps) @ output.T

    def prefill(self, tokens: list[int], chunk_size: int) -> Tensor:
        """The logits (T, V) of a prompt read chunk by chunk (section 2, "Pre-fill and Chunking")."""
        chunks = [tokens[begin : begin + chunk_size] for begin in range(0, len(tokens), chunk_size)]
        return torch.cat([self.forward(chunk) for chunk in chunks])

    def generate(self, tokens: list[int], max_tokens: int, eos: int | None = None, chunk_size: int = 64) -> list[int]:
        """Greedy decoding: the most likely token, again and again, until `eos` or `max_tokens`."""
        logits = self.prefill(tokens, chunk_size)
        made: list[int] = []
        while True:
            made.append(int(logits[-1].argmax()))
            if len(made) == max_tokens or made[-1] == eos:
                return made
            logits = self.forward(made[-1:])


def main() -> None:
    """Continues a prompt with the checkpoint and the tokenizer of a folder."""
    parser = argparse.ArgumentParser(description="Greedy continuation, slowly and obviously.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--max-tokens", type=int, default=16)
    given = parser.parse_args()
    decode: Callable[[list[int]], str]
    eos: int | None
    if (given.folder / "tokenizer.model").exists():
        from sentencepiece import SentencePieceProcessor

        model = SentencePieceProcessor(model_file=str(given.folder / "tokenizer.model"))
        prompt, eos, decode = [model.bos_id(), *model.encode(given.prompt)], model.eos_id(), model.decode
    else:
        from tokenizers import Tokenizer

        words = Tokenizer.from_file(str(given.folder / "tokenizer.json"))
        prompt, eos, decode = words.encode(given.prompt).ids, None, words.decode
    with torch.inference_mode():
        made = Model.from_folder(given.folder).generate(prompt, given.max_tokens, eos)
    print(decode(prompt + made))


if __name__ == "__main__":
    main()
