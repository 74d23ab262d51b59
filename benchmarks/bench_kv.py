"""What fewer bits in the cache of keys and values cost: bytes, and perplexity of the demo model.

    python benchmarks/bench_kv.py --text wiki.test.raw [--model demo] [--tokens 16384] [--context 2048] [--out FILE]

The weights are unpacked to float32, so that the cache is all that differs. The text is cut into segments of --context
tokens side by side (`LLM.score`).
"""

import argparse
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

import roofline
from circius import LLM

BITS = (32, 16, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--context", type=int, default=2_048)
    parser.add_argument("--out", type=Path, help="append the results as JSON lines")
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8")
    table = Table("bits", "bytes a token", "perplexity", "of 32 bits'")
    first = math.nan
    for bits in BITS:
        llm = LLM(given.model, dtype="float32", kv_bits=bits, context=given.context)
        assert llm.tokenizer is not None
        ids = llm.tokenizer.encode(text[: 8 * given.tokens])[: given.tokens]
        score = llm.score(llm.tokenizer.decode(ids))
        first = score.perplexity if bits == BITS[0] else first
        n_bytes = llm.model.cache_bytes(1)
        change = score.perplexity / first - 1
        table.add_row(str(bits), f"{n_bytes:,}", f"{score.perplexity:.4f}", f"{change:+.3%}")
        if given.out:
            line = {
                "kv_bits": bits, "model": Path(given.model).name, "context": given.context, "n_tokens": score.n_tokens,
                "bytes_per_token": n_bytes, "perplexity": score.perplexity, "change": change,
            }  # fmt: skip
            roofline.append(given.out, line)
    Console().print(table)


if __name__ == "__main__":
    main()
