"""What fewer bits cost: bytes, perplexity, agreement and speed of one model in every form that circius gives weights.

    python benchmarks/bench_quant.py --text wiki.test.raw [--calibration books.txt] [--llamacpp BUILD/bin]
        [--model demo] [--tokens 32768] [--folder DIR] [--out FILE]

All forms are made from the same dense values: those of the model's file, in float32 where they were quantised. The
demo model is distributed in Q4_1, so rounding it to 4 bits with minima in groups of 32 would merely find the same
values again; that is the row "taken over". The fair comparison is that of symmetric groups of 32, which are Q4_0's too.

A form is run twice: its weights unpacked to float32, which shows what the weights alone cost, and packed with
activations in 8 bits, as circius runs large models by default. The text is cut into segments of --context tokens side
by side (`LLM.score`). KL is the mean divergence from the float model, "agrees" how often the likeliest token is the
same, both on the first --sample tokens.

Compensated forms need --calibration, another text than the one that is scored. With --llamacpp, a folder with
llama-quantize and llama-perplexity, its Q4_0 of the same values is read by circius too, so that no protocol differs;
its embedding is in Q8_0 then, for equal bytes. Its own perplexity of both files is shown below the table.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from circius import LLM, SamplingParams
from circius.quant.calibration import ROW_TOKENS, excerpts
from circius.quant.policy import Recipe, make_plan
from circius.quant.quantize import write_quantized
from circius.text import Tokenizer, export_tokenizer, gguf_fields, load_tokenizer
from circius.weights import open_checkpoint
from circius.weights.convert import convert
from circius.weights.hub import resolve

FORMS = {
    "8 bits": Recipe(bits=8, has_mins=False, group=32),
    **{f"4 bits, groups of {group}": Recipe(bits=4, group=group, has_mins=False) for group in (32, 64, 128)},
    **{f"4 bits with minima, groups of {group}": Recipe(bits=4, group=group, has_mins=True) for group in (64, 128)},
}
COMPENSATED = ("4 bits, groups of 32", "4 bits, groups of 64", "4 bits, groups of 128")
ALSO_AS_RUN = ("8 bits", "4 bits, groups of 32", "4 bits, groups of 32, gptq", "llama.cpp Q4_0", "taken over")


@dataclass(frozen=True)
class Line:
    """One measured form. `as_run` says what the numbers were computed with: unpacked weights, or packed ones."""

    form: str
    as_run: str
    bits_per_weight: float
    n_bytes: int
    perplexity: float
    kl: float
    agrees: float
    decode_tok_s: float | None
    n_tokens: int


class Judge:
    """The text, and what the float model makes of its beginning."""

    def __init__(self, text: str, tokenizer: Tokenizer, *, n_tokens: int, n_sample: int, context: int) -> None:
        ids = tokenizer.encode(text)
        if len(ids) < n_tokens:
            sys.exit(f"the text has {len(ids)} tokens, --tokens asks for {n_tokens}")
        self.text = text[: len(tokenizer.decode(ids[:n_tokens]))]
        self.n_tokens, self.context = n_tokens, context
        self._sample = torch.tensor(ids[:n_sample]).split(context)
        self._known: list[torch.Tensor] = []

    def learn(self, llm: LLM) -> None:
        """Takes this model's predictions for the true ones."""
        self._known = [self._log_probs(llm, segment) for segment in self._sample]

    def compare(self, llm: LLM) -> tuple[float, float]:
        """The mean divergence from the true predictions, and the share of tokens with the same likeliest next one."""
        divergence = agreeing = 0.0
        for segment, known in zip(self._sample, self._known, strict=True):
            found = self._log_probs(llm, segment)
            divergence += float((known.exp() * (known - found)).sum())
            agreeing += float((known.argmax(-1) == found.argmax(-1)).sum())
        n_sample = sum(map(len, self._sample))
        return divergence / n_sample, agreeing / n_sample

    @torch.inference_mode()
    def _log_probs(self, llm: LLM, segment: torch.Tensor) -> torch.Tensor:
        return llm.model(segment, [len(segment)]).log_softmax(-1)


def decode_speed(llm: LLM, n_tokens: int) -> float:
    """The median of three greedy answers to a short prompt, in tokens a second."""
    params = SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)
    speeds = []
    for _ in range(3):
        (output,) = llm.generate([[*range(1000, 1008)]], params)
        speeds.append(output.timings.decode_tokens_per_s)
    return statistics.median(speeds)


def measure(form: str, path: Path, judge: Judge, *, decode_tokens: int, **how: Any) -> Line:
    """One line of the table; `how` are arguments of `LLM`."""
    llm = LLM(path, context=judge.context, speculate=0, **how)
    score = llm.score(judge.text)
    kl, agrees = judge.compare(llm)
    stored = open_checkpoint(path)
    n_bytes = stored.n_bytes if stored.is_quantised else llm.model.dtype.itemsize * stored.config.n_parameters
    return Line(
        form=form,
        as_run=", ".join(f"{name}={value}" for name, value in how.items()),
        bits_per_weight=8 * n_bytes / stored.config.n_parameters,
        n_bytes=n_bytes,
        perplexity=score.perplexity,
        kl=kl,
        agrees=agrees,
        decode_tok_s=decode_speed(llm, decode_tokens) if decode_tokens else None,
        n_tokens=score.n_tokens,
    )


def write_form(dense: Path, target: Path, recipe: Recipe, rows: list[list[int]] | None) -> Path:
    """A packed model of the dense values; with `rows`, compensated."""
    checkpoint = open_checkpoint(dense)
    extra = partial(export_tokenizer, dense)
    write_quantized(checkpoint, make_plan(checkpoint, recipe), target, calibration=rows, extra=extra)
    return target


def forms(given: argparse.Namespace, dense: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Each form's name and where it is, made when its turn comes."""
    for name, recipe in FORMS.items():
        yield name, write_form(dense, folder / name.replace(" ", "-"), recipe, None)
    if given.calibration:
        text = given.calibration.read_text(encoding="utf-8")
        rows = excerpts(load_tokenizer(dense), text, n_tokens=given.calibration_tokens, row_tokens=ROW_TOKENS)
        for name in COMPENSATED:
            yield f"{name}, gptq", write_form(dense, folder / f"{name.replace(' ', '-')}-gptq", FORMS[name], rows)
    if given.llamacpp:
        yield "llama.cpp Q4_0", llamacpp_q4_0(given.llamacpp, dense, folder)
    source = resolve(given.model)
    if open_checkpoint(source).is_quantised:
        yield "taken over", source


def llamacpp_q4_0(programs: Path, dense: Path, folder: Path) -> Path:
    """llama.cpp's own rounding of the dense values, embedding and output in Q8_0."""
    plain, quantised = folder / "dense.gguf", folder / "q4_0.gguf"
    convert(dense, plain, to="gguf", metadata=gguf_fields(dense))
    types = ["--token-embedding-type", "q8_0", "--output-tensor-type", "q8_0"]
    subprocess.run([programs / "llama-quantize", *types, plain, quantised, "Q4_0"], check=True, capture_output=True)
    return quantised


def llamacpp_perplexity(programs: Path, model: Path, judge: Judge, folder: Path) -> float:
    """What llama-perplexity says of the same text. It scores the second half of each segment only."""
    text = folder / "text.txt"
    text.write_text(judge.text, encoding="utf-8")
    command = [programs / "llama-perplexity", "-m", model, "-f", text, "-c", f"{judge.context}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", done.stdout + done.stderr)
    return float(found[1]) if found else math.nan


def write_dense(model: str, folder: Path) -> Path:
    """The model's values in floats, with its tokenizer."""
    source = resolve(model)
    convert(source, folder / "dense", to="hf", extra=partial(export_tokenizer, source))
    return folder / "dense"


def show(lines: list[Line]) -> None:
    table = Table("form", "run with", "bits/weight", "MiB", "perplexity", "over float", "KL", "agrees", "decode tok/s")
    for line in lines:
        table.add_row(
            line.form, line.as_run, f"{line.bits_per_weight:.2f}", f"{line.n_bytes / 2**20:.1f}",
            f"{line.perplexity:.3f}", f"{line.perplexity / lines[0].perplexity - 1:+.2%}", f"{line.kl:.4f}",
            f"{line.agrees:.1%}", "" if line.decode_tok_s is None else f"{line.decode_tok_s:.1f}",
        )  # fmt: skip
    Console(width=160).print(table)


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, required=True, help="a UTF-8 text to score, such as WikiText-2's test part"
    )
    parser.add_argument("--calibration", type=Path, help="a UTF-8 text for gptq; another one")
    parser.add_argument("--calibration-tokens", type=int, default=32_768)
    parser.add_argument("--llamacpp", type=Path, help="the folder of llama-quantize and llama-perplexity")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--sample", type=int, default=2_048)
    parser.add_argument("--context", type=int, default=1_024)
    parser.add_argument("--decode-tokens", type=int, default=64, help="0 leaves speeds out")
    parser.add_argument(
        "--folder", type=Path, help="a new folder for the models, which then stay; else a temporary one"
    )
    parser.add_argument("--out", type=Path, help="append the lines to this file, as JSON")
    given = parser.parse_args()
    lines: list[Line] = []

    def take(form: str, path: Path, **how: Any) -> None:
        lines.append(measure(form, path, judge, decode_tokens=given.decode_tokens, **how))
        print(lines[-1], file=sys.stderr, flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps({"model": Path(given.model).name, **asdict(lines[-1])}) + "\n")

    with scratch(given.folder) as folder:
        dense = write_dense(given.model, folder)
        text = given.text.read_text(encoding="utf-8")
        judge = Judge(text, load_tokenizer(dense), n_tokens=given.tokens, n_sample=given.sample, context=given.context)
        judge.learn(LLM(dense, dtype="float32"))
        for dtype in ("float32", "bfloat16"):
            take("dense", dense, dtype=dtype)
        for form, path in forms(given, dense, folder):
            take(form, path, dtype="float32")
            if form in ALSO_AS_RUN:
                take(form, path, activations="int8")
        show(lines)
        if given.llamacpp:
            for name in ("dense.gguf", "q4_0.gguf"):
                shown = llamacpp_perplexity(given.llamacpp, folder / name, judge, folder)
                print(f"llama-perplexity of {name}, second halves of segments only: {shown:.3f}")


if __name__ == "__main__":
    main()
