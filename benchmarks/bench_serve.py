"""`circius serve` beside llama.cpp's server on this machine: the same requests, the same threads, taking turns.

    python benchmarks/bench_serve.py MODEL MODEL.gguf --llamacpp BIN_FOLDER [--streams 1 4 8 16] [--rates 0.5 1]

Two kinds of load. Closed: so many clients, each of which asks again when it has been answered. Open: requests arrive by
themselves, at random (Poisson) with so many a second, whether the server keeps up or not. Every request has a prompt of
its own, or, in the rows named "shared", a beginning that all have in common. Prompts are token ids, the same on both
sides; answers have a fixed length. TTFT is the time to the first token, TPOT the mean time between those after it.

llama.cpp's server has as many slots as there are clients, a unified cache of the same size, and its own prompt cache.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from circius.engine import machine
from roofline import RESULTS, append

START_S = 600
FIRST_ID = 300


@dataclass(frozen=True, kw_only=True)
class Load:
    """streams: clients in a closed loop, or None; rate: requests a second in an open one, or None."""

    streams: int | None
    rate: float | None
    n_requests: int
    prompt_tokens: int
    shared_tokens: int
    answer_tokens: int

    @property
    def name(self) -> str:
        how = f"{self.streams} clients" if self.streams else f"{self.rate:g} a second"
        return f"{how}, {'shared' if self.shared_tokens else 'cold'}"


@dataclass(frozen=True)
class Answered:
    sent_at: float
    first_at: float
    last_at: float
    n_tokens: int

    @property
    def ttft_s(self) -> float:
        return self.first_at - self.sent_at

    @property
    def tpot_s(self) -> float:
        return (self.last_at - self.first_at) / max(1, self.n_tokens - 1)


def prompts(load: Load, seed: int, vocabulary: int) -> list[list[int]]:
    own = random.Random(seed)

    def ids(n: int) -> list[int]:
        return [own.randrange(FIRST_ID, vocabulary) for _ in range(n)]

    shared = ids(load.shared_tokens)
    return [[*shared, *ids(load.prompt_tokens - len(shared))] for _ in range(load.n_requests)]


async def ask(client: httpx.AsyncClient, model: str, prompt: list[int], n_tokens: int) -> Answered:
    body = {
        "model": model, "prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    sent_at, times, usage = time.perf_counter(), [], None
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError((await response.aread()).decode())
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            if event.get("choices"):
                times.append(time.perf_counter())
    if usage is None or usage["completion_tokens"] != n_tokens:
        raise RuntimeError(f"asked for {n_tokens} tokens, got {usage}")
    return Answered(sent_at, times[0], times[-1], n_tokens)


async def run_load(url: str, model: str, load: Load, seed: int, vocabulary: int) -> list[Answered]:
    own, arrivals = prompts(load, seed, vocabulary), random.Random(seed)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # servers close idle ones when they like
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as client:
        waiting = iter(own)
        if load.streams is not None:

            async def client_loop() -> list[Answered]:
                return [await ask(client, model, prompt, load.answer_tokens) for prompt in waiting]

            groups = await asyncio.gather(*(client_loop() for _ in range(load.streams)))
            return [each for group in groups for each in group]

        async def arriving() -> AsyncIterator[list[int]]:
            for prompt in waiting:
                yield prompt
                await asyncio.sleep(arrivals.expovariate(load.rate or 1))

        tasks = [asyncio.ensure_future(ask(client, model, prompt, load.answer_tokens)) async for prompt in arriving()]
        return list(await asyncio.gather(*tasks))


@contextlib.contextmanager
def server(command: list[str], *, quiet_env: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A server's address and process id, when it is ready."""
    with Path(os.devnull).open("w") as nothing:
        process = subprocess.Popen(command, stdout=nothing, stderr=subprocess.PIPE, text=True, env=quiet_env)
        assert process.stderr is not None
        said, url = [], None
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"(?:running on|listening on) (http://[\d.]+:\d+)", line):
                url = found[1]
                break
        if url is None:
            raise RuntimeError("".join(said[-20:]))
        import threading

        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop it
        try:
            deadline = time.monotonic() + START_S
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("".join(said[-20:]))
                time.sleep(0.2)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait()


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def ours(given: argparse.Namespace, streams: int) -> list[str]:
    return [
        *(sys.executable, "-m", "circius", "serve", given.model, "--port=0", f"--threads={given.threads}"),
        *(f"--max-streams={streams}", f"--context={given.context}", "--max-open=4096", "--served-model-name=bench"),
        *shlex.split(given.circius),
    ]


def theirs(given: argparse.Namespace, streams: int) -> list[str]:
    return [
        *(str(given.llamacpp / "llama-server"), "-m", given.gguf, "-t", f"{given.threads}", "--port", "18089"),
        *("-np", f"{streams}", "-c", f"{given.context * streams}", "--no-webui", "--host", "127.0.0.1"),
        *shlex.split(given.llama),
    ]


def measure(given: argparse.Namespace, load: Load, seed: int) -> dict[str, Any]:
    """Both servers under the same load, one after the other."""
    found: dict[str, Any] = {}
    streams = load.streams or given.open_streams
    order = (("circius", ours), ("llama.cpp", theirs))
    for name, command in order if seed % 2 else reversed(order):
        with server(command(given, streams), quiet_env={**os.environ}) as (url, pid):
            warm = Load(**{**asdict(load), "n_requests": 1, "streams": 1, "rate": None})
            asyncio.run(run_load(url, "bench", warm, 10_000 + seed, given.vocabulary))
            began = time.perf_counter()
            answered = asyncio.run(run_load(url, "bench", load, seed, given.vocabulary))
            seconds = time.perf_counter() - began
            memory = peak_bytes(pid)
        found[name] = {
            "tokens_per_s": load.answer_tokens * load.n_requests / seconds,
            "requests_per_s": load.n_requests / seconds,
            **quantiles("ttft_s", [each.ttft_s for each in answered]),
            **quantiles("tpot_s", [each.tpot_s for each in answered]),
            "peak_bytes": memory,
        }
    return found


def quantiles(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"{name}_p{q}": ordered[min(len(ordered) - 1, round(q / 100 * (len(ordered) - 1)))] for q in (50, 90, 99)}


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {
            key: statistics.median(run[name][key] for run in runs) for key in runs[0][name] if key != "foreign_share"
        }
        for name in runs[0]
    }


def show(lines: list[dict[str, Any]]) -> None:
    table = Table("load", "", "tok/s", "TTFT p50", "p90", "p99 s", "TPOT p50", "p90", "p99 ms", "peak GB")
    for line in lines:
        for name in ("circius", "llama.cpp"):
            own = line[name]
            table.add_row(
                line["load"] if name == "circius" else f"{line['ratio']:.2f}x tok/s", name,
                f"{own['tokens_per_s']:.1f}", *(f"{own[f'ttft_s_p{q}']:.2f}" for q in (50, 90, 99)),
                *(f"{1000 * own[f'tpot_s_p{q}']:.1f}" for q in (50, 90, 99)), f"{own['peak_bytes'] / 1e9:.2f}",
            )  # fmt: skip
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("gguf", help="the same weights for llama.cpp")
    parser.add_argument("--llamacpp", type=Path, required=True, help="folder with llama-server")
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 4, 8, 16])
    parser.add_argument("--rates", type=float, nargs="*", default=[])
    parser.add_argument("--open-streams", type=int, default=16, help="streams or slots under an open load")
    parser.add_argument("--requests", type=int, default=4, help="for each client, or in all times four")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--context", type=int, default=2048, help="of one stream")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="ids of prompts are below this")
    parser.add_argument("--kinds", nargs="+", choices=["cold", "shared"], default=["cold", "shared"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--circius", default="", help="more options for `circius serve`, as one word: --circius='...'")
    parser.add_argument("--llama", default="", help="more options for llama-server, likewise")
    parser.add_argument("--out", type=Path, help=f"result lines, such as {RESULTS.name}/serve.jsonl")
    given = parser.parse_args()
    lines = []
    for kind in given.kinds:
        shared = given.prompt_tokens * 3 // 4 if kind == "shared" else 0
        sizes = {"prompt_tokens": given.prompt_tokens, "shared_tokens": shared, "answer_tokens": given.answer_tokens}
        loads = [
            *(Load(streams=n, rate=None, n_requests=n * given.requests, **sizes) for n in given.streams),
            *(Load(streams=None, rate=rate, n_requests=4 * given.requests, **sizes) for rate in given.rates),
        ]
        for load in loads:
            runs = [measure(given, load, seed) for seed in range(given.rounds)]
            found = medians(runs)
            line = {
                "load": load.name, **asdict(load), "model": Path(given.model).name, "context": given.context,
                "circius_options": given.circius,
                "threads": given.threads, **found, "processor": machine.processor_name(),
                "ratio": found["circius"]["tokens_per_s"] / found["llama.cpp"]["tokens_per_s"],
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }  # fmt: skip
            lines.append(line)
            if given.out:
                append(given.out, line)
            show(lines)


if __name__ == "__main__":
    main()
