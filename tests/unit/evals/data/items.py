"""A store of a few items of each benchmark, all written for these tests, with the traps of the real files in them."""

import gzip
import json
from pathlib import Path
from typing import Any

from circius.evals.data.catalogue import find_part
from circius.evals.data.store import write


def put(home: Path, path: str, content: bytes) -> None:
    """Puts a file into a store, as a user would with --accept-changed."""
    write(find_part(path), content, home, accept_changed=True)


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


HELLASWAG = {
    "ind": 4,
    "activity_label": "Baking bread",
    "ctx_a": "A woman kneads dough.",
    "ctx_b": "she",
    "endings": ["puts it into the oven.", "paints it blue.", "reads it a story.", "folds it into a hat."],
    "label": "0",
}
PIQA = {"goal": "Keep soup warm", "sol1": "Put a lid on the pot.", "sol2": "Put the lid on the table.", "label": 0}
