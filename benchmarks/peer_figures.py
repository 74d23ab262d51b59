"""The figures of `bench_vs_llamacpp.py`: how each is taken on either side, and the ratio to reach."""

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacpp import PROMPT, LlamaCpp
from peer_models import Models, Pair
from roofline import run_process

LLAMACPP = "llama.cpp"
LIBRARIES = ("ctranslate2", "transformers")
LATENCY_CONTEXT = 512
MEMORY_CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all figures need. `libraries`: a Python that has the other peers, if they are wanted."""

    models: Models
    llama: LlamaCpp
    n_threads: int
    tokens: int
    libraries: Path | None

    def ours(self, model: Path, **options: int) -> dict[str, Any]:
        """What `circius bench` says of one figure, taken once."""
        given = {"prompt-lengths": "none", "contexts": "none", "batches": "none", "repeats": 1, **options}
        # Models of a few layers stand for a whole 7B, which takes rounded inputs.
        given = {"threads": self.n_threads, "activations": "int8", **given}
        words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        command = [sys.executable, "-m", "circius", "bench", str(model), "--json"]
        found: dict[str, Any] = json.loads(run_process([*command, *words]).stdout)
        if found["skipped"]:
            raise RuntimeError(f"circius skipped {', '.join(found['skipped'])}")
        return found

    def our_speed(self, model: Path, **options: int) -> float:
        return float(self.ours(model, **options)["figures"][0]["tokens_per_s"])

    def our_decoding(self, model: Path, *, context: int = 0, streams: int = 1) -> float:
        return self.our_speed(model, contexts=context, batches=streams, tokens=self.tokens)

    def our_memory_gb(self, model: Path) -> float:
        found = self.ours(model, contexts=MEMORY_CONTEXT - 8, batches=1, tokens=4)
        return float(found["peak_memory_bytes"]) / 1e9

    def our_first_token_s(self, model: Path) -> float:
        command = [sys.executable, "-m", "circius", "generate", str(model), PROMPT, "--raw", "--max-tokens=1"]
        finished = run_process([*command, f"--threads={self.n_threads}", f"--context={LATENCY_CONTEXT}", "--quiet"])
        return finished.first_output_s or finished.seconds

    def their_first_token_s(self, model: Path, flash: bool) -> float:
        finished = self.llama.one_token(model, flash=flash, context=LATENCY_CONTEXT)
        return finished.first_output_s or finished.seconds

    def library_speed(self, library: str, n_tokens: int) -> float:
        assert self.libraries is not None
        script = Path(__file__).with_name("peer_prefill.py")
        folder = self.models.pair("bf16").ours
        command = [self.libraries, script, library, folder, f"{n_tokens}", f"{self.n_threads}"]
        return statistics.median(json.loads(run_process(command).stdout.splitlines()[-1]))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table.

    kind: which models; "deep" and "bf16" ones have few layers.
    theirs: called with flash attention off or on, if the peer has the choice.
    is_cost: less is better, and the ratio must be at most the goal.
    """

    name: str
    about: str
    goal: float
    kind: str
    ours: Callable[[Setup, Path], float]
    theirs: Callable[[Setup, Path, bool], float]
    peer: str = LLAMACPP
    has_flash: bool = True
    is_cost: bool = False
    unit: str = "tok/s"
    most_rounds: int = 99

    def reached(self, ratio: float) -> bool:
        return ratio <= self.goal if self.is_cost else ratio >= self.goal

    def scale(self, pair: Pair) -> float:
        """What a speed on few layers is multiplied by."""
        return 1.0 if self.is_cost or self.kind == "q4" else pair.n_layers / 32


def reading(name: str, about: str, goal: float, kind: str, n_tokens: int, most_rounds: int = 99) -> Figure:
    warms_up = n_tokens <= 512  # llama-bench warms up with as many tokens
    return Figure(
        name=name, about=about, goal=goal, kind=kind, most_rounds=most_rounds,
        ours=lambda setup, model: setup.our_speed(model, prompt_lengths=n_tokens),
        theirs=lambda setup, model, flash: statistics.median(
            setup.llama.speeds(model, flash=flash, prompt=n_tokens, warms_up=warms_up)
        ),
    )  # fmt: skip


def decoding(name: str, about: str, goal: float, kind: str, context: int, most_rounds: int = 99) -> Figure:
    repeats = 3 if context else 1  # llama-bench reads the context once for all of them
    return Figure(
        name=name, about=about, goal=goal, kind=kind, most_rounds=most_rounds,
        ours=lambda setup, model: setup.our_decoding(model, context=context),
        theirs=lambda setup, model, flash: statistics.median(
            setup.llama.speeds(model, flash=flash, tokens=setup.tokens, depth=context, repeats=repeats)
        ),
    )  # fmt: skip


def batched(name: str, about: str, goal: float, streams: int) -> Figure:
    return Figure(
        name=name, about=about, goal=goal, kind="q4",
        ours=lambda setup, model: setup.our_decoding(model, streams=streams),
        theirs=lambda setup, model, flash: setup.llama.batched_speed(
            model, flash=flash, streams=streams, tokens=setup.tokens
        ),
    )  # fmt: skip


def against(library: str, n_tokens: int) -> Figure:
    """Our 4-bit pre-fill beside that of another library, on its bf16 or int8 weights."""
    return Figure(
        name=f"{library}-pp{n_tokens}", about=f"pre-fill {n_tokens:,} tokens, int4 beside {library}", goal=1.0,
        kind="deep", peer=library, has_flash=False,
        ours=lambda setup, model: setup.our_speed(model, prompt_lengths=n_tokens),
        theirs=lambda setup, model, flash: setup.library_speed(library, n_tokens),
    )  # fmt: skip


FIGURES = (
    decoding("tg0", "decode, 1 stream, short context", 1.05, "q4", 0),
    decoding("tg4096", "decode at 4,096 tokens of context", 1.2, "deep", 4096),
    decoding("tg16384", "decode at 16,384 tokens of context", 2.5, "deep", 16384, most_rounds=1),
    batched("batch8", "decode, 8 streams together", 2.0, 8),
    batched("batch32", "decode, 32 streams together", 2.0, 32),
    reading("pp512", "pre-fill 512 tokens", 2.5, "q4", 512),
    reading("pp2048", "pre-fill 2,048 tokens", 2.5, "deep", 2048),
    reading("pp16384", "pre-fill 16,384 tokens", 4.0, "deep", 16384, most_rounds=1),
    reading("bf16-pp512", "bf16 pre-fill 512 tokens", 1.7, "bf16", 512),
    decoding("bf16-tg0", "bf16 decode, 1 stream", 1.0, "bf16", 0),
    Figure(
        name="memory", about="resident memory at 4,096 tokens", goal=0.6, kind="q4", is_cost=True, unit="GB",
        ours=lambda setup, model: setup.our_memory_gb(model),
        theirs=lambda setup, model, flash: setup.llama.one_token(
            model, flash=flash, context=MEMORY_CONTEXT
        ).peak_bytes / 1e9,
    ),
    Figure(
        name="load", about="warm start to first token", goal=0.35, kind="q4", is_cost=True, unit="s",
        ours=lambda setup, model: setup.our_first_token_s(model),
        theirs=lambda setup, model, flash: setup.their_first_token_s(model, flash),
    ),
    *(against(library, n_tokens) for library in LIBRARIES for n_tokens in (512, 2048)),
)  # fmt: skip
