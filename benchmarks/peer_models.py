"""The models that circius and its peers are compared on: made once and kept, the same numbers on both sides."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from circius.base.config import PRESETS
from random_model import shape, write_q4_0

FULL_VOCABULARY = PRESETS["v0.1"].vocab_size
SMALL_VOCABULARY = 512
"""So small that the output matrix takes no time: speeds go with the layers alone."""


@dataclass(frozen=True)
class Pair:
    """The same model as either side reads it."""

    ours: Path
    theirs: Path
    n_layers: int


@dataclass(frozen=True)
class Models:
    """Models of v0.1's shape in `folder`: "q4" with `n_layers`, "deep" (4 bits) and "bf16" with few layers."""

    folder: Path
    n_layers: int
    n_deep_layers: int

    def describe(self, kind: str) -> str:
        """What a kind is, in words that say all that matters for speed."""
        n_layers, vocab_size = self._sizes(kind)
        numbers = "bf16" if kind == "bf16" else "Q4_0, embedding and output Q8_0"
        return f"v0.1, {n_layers} layers, {vocab_size} tokens, {numbers}"

    def pair(self, kind: str) -> Pair:
        """The models of a kind, made if they are not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        n_layers, vocab_size = self._sizes(kind)
        whole = vocab_size == FULL_VOCABULARY
        stem = (
            "7b" if n_layers == PRESETS["v0.1"].n_layers and whole else f"{n_layers}layers" + ("-head" if whole else "")
        )
        gguf = self.folder / f"{stem}-q4_0.gguf"
        if not gguf.exists():
            write_q4_0(gguf, shape(n_layers, vocab_size))
        if kind != "bf16":
            packed = self.folder / f"{stem}-int4"
            if not packed.exists():
                _circius("quantize", gguf, packed, "--bits", "keep")
            return Pair(packed, gguf, n_layers)
        plain, plain_gguf = self.folder / f"{stem}-bf16", self.folder / f"{stem}-bf16.gguf"
        # llama.cpp needs a vocabulary of a kind that it knows: that of the Q4_0 file.
        sizes = [f"--layers={n_layers}", f"--vocab={vocab_size}", f"--tokenizer={gguf}", "--context=32768"]
        for path, layout in ((plain, "hf"), (plain_gguf, "gguf")):
            if not path.exists():
                _circius("init", path, *sizes, f"--to={layout}")
        return Pair(plain, plain_gguf, n_layers)

    def _sizes(self, kind: str) -> tuple[int, int]:
        return (self.n_layers, FULL_VOCABULARY) if kind == "q4" else (self.n_deep_layers, SMALL_VOCABULARY)


def _circius(verb: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "circius", verb, *arguments, "--quiet"], check=True, stdout=sys.stderr)
