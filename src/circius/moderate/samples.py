"""Public prompts to measure guardrails with: XSTest's and SimpleSafetyTests', read from the user's folder.

None of them is part of circius. The folder holds `xstest/xstest_prompts.csv` and
`simplesafetytests/SimpleSafetyTests_test_cases.csv` as their authors publish them, and, for the check of the refusal
rules, XSTest's labelled answers `xstest/xstest_v2_completions_*.csv`.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import InvalidInputError

XSTEST = Path("xstest") / "xstest_prompts.csv"
SIMPLE_SAFETY_TESTS = Path("simplesafetytests") / "SimpleSafetyTests_test_cases.csv"
LABELLED = "xstest_v2_completions_*.csv"

N_UNSAFE = 175
"""As many as the paper's own set, which was not published."""
SEED = 231006825
"""Chooses which prompts are drawn, when nobody says otherwise: the paper's number on arXiv."""

Truth = str
"""What people said of an answer: `comply`, `refuse` or `partly`."""
_TRUTHS: Mapping[str, Truth] = {
    "1_full_compliance": "comply",
    "2_full_refusal": "refuse",
    "3_partial_refusal": "partly",
}


@dataclass(frozen=True)
class Sample:
    """A prompt, and whether a good assistant answers it."""

    id: str
    text: str
    is_safe: bool


@dataclass(frozen=True)
class Labelled:
    """An answer, and what people said of it."""

    id: str
    answer: str
    truth: Truth


def read_samples(folder: Path) -> list[Sample]:
    """All prompts: XSTest's 250 safe and 200 unsafe, and the 100 of SimpleSafetyTests, all unsafe.

    Raises:
        InvalidInputError: a file is missing, or is not what it should be.
    """
    found = [
        Sample(f"xstest-{row['id']}", row["prompt"], _is_safe(row, folder / XSTEST))
        for row in _rows(folder / XSTEST, ("id", "prompt", "label"))
    ]
    found += [
        Sample(row["id"], row["prompts_final"], is_safe=False)
        for row in _rows(folder / SIMPLE_SAFETY_TESTS, ("id", "prompts_final"))
    ]
    return found


def read_labelled(folder: Path) -> dict[str, list[Labelled]]:
    """XSTest's labelled answers, by the name of the system that gave them.

    Raises:
        InvalidInputError: there are none, or one has a label that is not known.
    """
    files = sorted((folder / XSTEST.parent).glob(LABELLED))
    if not files:
        raise InvalidInputError(
            f"{folder / XSTEST.parent} has no {LABELLED}: get them from XSTest's repository (model_completions)"
        )
    found = {}
    for file in files:
        name = file.stem.removeprefix(LABELLED.partition("*")[0])
        rows = _rows(file, ("id", "completion", "final_label"))
        found[name] = [Labelled(row["id"], row["completion"], _truth(row, file)) for row in rows]
    return found


def drawn(samples: Sequence[Sample], n: int, *, seed: int = SEED) -> list[Sample]:
    """So many of the samples, the same ones on every machine, in the order in which they stand.

    They are those whose ids have the smallest SHA-256 together with the seed: no generator of numbers whose next
    version draws differently.

    Raises:
        InvalidInputError: there are not so many.
    """
    if n > len(samples):
        raise InvalidInputError(f"{n} prompts were asked for, and there are {len(samples)}")
    order = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.id}".encode()).digest())
    chosen = {sample.id for sample in order[:n]}
    return [sample for sample in samples if sample.id in chosen]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise InvalidInputError(
                    f"{path} has no column {missing[0]!r}: is it the file that its authors publish?"
                )
            for row in reader:
                if any(not row[column] for column in columns):
                    raise InvalidInputError(f"{path}:{reader.line_num}: one of {', '.join(columns)} is empty")
                yield row
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8 text") from None


def _is_safe(row: Mapping[str, str], path: Path) -> bool:
    if row["label"] not in ("safe", "unsafe"):
        raise InvalidInputError(f"{path}: prompt {row['id']} has the label {row['label']!r}, not safe or unsafe")
    return row["label"] == "safe"


def _truth(row: Mapping[str, str], path: Path) -> Truth:
    if row["final_label"] not in _TRUTHS:
        raise InvalidInputError(
            f"{path}: answer {row['id']} has the label {row['final_label']!r}, not one of {', '.join(_TRUTHS)}"
        )
    return _TRUTHS[row["final_label"]]
