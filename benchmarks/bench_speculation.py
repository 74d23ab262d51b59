"""Speculation by prompt lookup against plain decoding: the same model, the same process, taking turns.

    python benchmarks/bench_speculation.py [--model demo] [--tokens 200] [--rounds 5] [--speculate 8] [--out FILE]
    python benchmarks/bench_speculation.py --model FOLDER --costs [--context 512]

The first form answers prompts that ask to repeat or to edit a quoted text, and one that quotes nothing, at temperature
0 and 0.7, and prints medians of decoded tokens a second, their ratio, and how many of the drafted tokens were accepted.
That the tokens are the same is checked. A model of random weights cannot copy a text; `--costs` therefore measures only
what it costs to verify several tokens in one step, beside one token: what speculation can gain follows from it.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from circius import LLM, SamplingParams
from circius.engine.generate import new_cache
from circius.engine.machine import Watch
from circius.engine.outputs import RequestOutput
from speculation_prompts import PROMPTS

SAMPLED = 0.7
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17)


@dataclass(frozen=True)
class Speed:
    """What one prompt gave: medians over the rounds, and the share of the machine that others used meanwhile."""

    prompt: str
    temperature: float
    speculate: int
    n_prompt: int
    n_tokens: int
    plain_tokens_per_s: float
    tokens_per_s: float
    ratio: float
    drafted: int
    accepted: int
    is_same: bool
    foreign_share: float | None


@dataclass(frozen=True)
class Cost:
    """The median time of a forward over some tokens after a context, and its ratio to that over one."""

    n_tokens: int
    context: int
    ms: float
    ratio: float
    foreign_share: float | None


def answered(llm: LLM, prompt: str, params: SamplingParams) -> RequestOutput:
    if llm.chat_template is None:
        return llm.generate(prompt, params)[0]
    return llm.chat([{"role": "user", "content": prompt}], params)[0]


def measure_speed(plain: LLM, drafting: LLM, name: str, temperature: float, tokens: int, rounds: int) -> Speed:
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=tokens)
    rates: dict[bool, list[float]] = {False: [], True: []}
    outs: dict[bool, RequestOutput] = {}
    with Watch() as watch:
        for turn in range(2 * rounds):
            drafts = turn % 2 == 1
            outs[drafts] = answered(drafting if drafts else plain, PROMPTS[name], params)
            rates[drafts].append(outs[drafts].timings.decode_tokens_per_s)
    before, after = (statistics.median(rates[drafts]) for drafts in (False, True))
    timings = outs[True].timings
    return Speed(
        prompt=name,
        temperature=temperature,
        speculate=drafting.limits.speculate,
        n_prompt=timings.prompt_tokens,
        n_tokens=timings.completion_tokens,
        plain_tokens_per_s=before,
        tokens_per_s=after,
        ratio=after / before,
        drafted=timings.drafted_tokens,
        accepted=timings.accepted_tokens,
        is_same=outs[False].outputs == outs[True].outputs,
        foreign_share=watch.foreign_share,
    )


@torch.inference_mode()
def measure_costs(llm: LLM, context: int, rounds: int) -> list[Cost]:
    cache = new_cache(llm.model, [context + max(WIDTHS)], llm.limits)
    cache.pretend(context)
    times: dict[int, list[float]] = {width: [] for width in WIDTHS}
    with Watch() as watch:
        for _ in range(rounds):
            for width in WIDTHS:
                tokens = torch.randint(llm.config.vocab_size, (width,))
                started = time.perf_counter()
                llm.model(tokens, [width], cache=cache)
                times[width].append(time.perf_counter() - started)
                cache.truncate(0, context)
    medians = {width: statistics.median(own) for width, own in times.items()}
    return [
        Cost(width, context, 1000 * seconds, seconds / medians[1], watch.foreign_share)
        for width, seconds in medians.items()
    ]


def share(part: float | None) -> str:
    return "unknown" if part is None else f"{part:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--prompts", nargs="+", choices=list(PROMPTS), default=list(PROMPTS))
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speculate", type=int, default=8)
    parser.add_argument("--costs", action="store_true", help="measure only what verifying several tokens costs")
    parser.add_argument("--context", type=int, default=512, help="for --costs")
    parser.add_argument("--out", type=Path, help="append the results as JSON lines")
    given = parser.parse_args()
    drafting = LLM(given.model, dtype=given.dtype, threads=given.threads, speculate=given.speculate)
    found: list[Speed | Cost] = []
    if given.costs:
        table = Table("tokens in one step", "ms", "over one token", "others used")
        for cost in measure_costs(drafting, given.context, given.rounds):
            table.add_row(str(cost.n_tokens), f"{cost.ms:.2f}", f"{cost.ratio:.2f}", share(cost.foreign_share))
            found.append(cost)
    else:
        plain = LLM.of(drafting.model, tokenizer=drafting.tokenizer, chat_template=drafting.chat_template)
        table = Table("prompt", "T", "tokens", "plain tok/s", "speculating", "ratio", "accepted", "same", "others used")
        for name in given.prompts:
            for temperature in (0.0, SAMPLED):
                speed = measure_speed(plain, drafting, name, temperature, given.tokens, given.rounds)
                table.add_row(
                    name, f"{temperature:g}", str(speed.n_tokens), f"{speed.plain_tokens_per_s:.1f}",
                    f"{speed.tokens_per_s:.1f}", f"{speed.ratio:.2f}x", f"{speed.accepted} of {speed.drafted}",
                    "yes" if speed.is_same else "NO", share(speed.foreign_share),
                )  # fmt: skip
                found.append(speed)
    Console().print(table)
    if given.out:
        with given.out.open("a") as file:
            file.writelines(json.dumps({"model": Path(given.model).name, **asdict(line)}) + "\n" for line in found)


if __name__ == "__main__":
    main()
