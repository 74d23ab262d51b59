"""The measuring side of `circius moderate`: which prompts, which model, and the tables at the end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output, table
from circius.cli.progress import progress
from circius.cli.talking import identity_of

if TYPE_CHECKING:
    from circius import LLM
    from circius.moderate.measure import Guarding, Measured, Moderation
    from circius.moderate.rates import Confusion, Rate

NOT_THE_PAPERS = (
    "the paper's prompts were never published: its figures are of other prompts, and the safe ones here were written "
    "to look unsafe"
)
RULES_ARE_RULES = "refusals are told by rules over words; --check-rules says how far those can be trusted"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be measured."""

    folder: Path
    journal: Path
    categories: Sequence[str]
    n_unsafe: int | None
    n_safe: int | None
    seed: int | None
    max_tokens: int


def show_measured(loading: ModelOptions, wanted: Wanted, output: Output) -> None:
    """Asks, judges and prints."""
    from circius.moderate.measure import Plan, measure
    from circius.moderate.samples import N_UNSAFE, SEED

    plan = Plan.of(
        wanted.folder,
        n_unsafe=wanted.n_unsafe or N_UNSAFE,
        n_safe=wanted.n_safe,
        seed=SEED if wanted.seed is None else wanted.seed,
    )
    llm = open_llm(loading, output)
    from circius.engine.reflection import reflector

    judges = {name: reflector(llm, name).verdicts for name in wanted.categories}
    with progress("measuring", output) as on_progress:
        measured = measure(
            plan,
            partial(_answers, llm, max_tokens=wanted.max_tokens),
            judges,
            wanted.journal,
            belongs_to={"model": identity_of(loading, output), "max_tokens": wanted.max_tokens},
            on_done=lambda done, total: on_progress(done, total),
        )
    output.note(NOT_THE_PAPERS)
    output.note(RULES_ARE_RULES)
    if output.as_json:
        output.emit({"model": loading.model, "seed": plan.seed, **fields(measured)})
        return
    output.line(guard_table(measured))
    for name, own in measured.moderation.items():
        output.line("\n" + moderation_table(name, own))


def show_rules(folder: Path, output: Output) -> None:
    """Prints how well the rules that tell refusals agree with people."""
    from circius.moderate.measure import check_refusals_in

    found = check_refusals_in(folder)
    if output.as_json:
        output.emit({"refusal_rules": {name: _confusion(each) for name, each in found.items()}})
        return
    rows = [[name, f"{each.precision}", f"{each.recall}", f"{each.f1:.3f}"] for name, each in found.items()]
    output.note("a full refusal is the positive class; answers that people called partial refusals are left out")
    output.line(table(["answers of", "precision", "recall", "F1"], rows))


def guard_table(measured: "Measured") -> str:
    """Refusals with and without the guard prompt."""
    rows = []
    for name, own, paper in (
        ("without the guard", measured.without_guard, ""),
        ("with the guard", measured.with_guard, "100 % of 175"),
    ):
        rows.append(
            [
                name,
                str(own.refused_unsafe),
                paper,
                str(own.refused_safe),
                "declined" if own.refused_table_5 else "answered",
            ]
        )
    return table(["", "unsafe prompts declined", "paper", "safe prompts declined", "Table 5: a Linux process"], rows)


def moderation_table(name: str, own: "Moderation") -> str:
    """Precision and recall of "acceptable" with one list of categories."""
    from circius.moderate.measure import PAPER_PRECISION, PAPER_RECALL

    at_paper = own.at_paper
    rows = [
        ["at 0.5", str(own.at_half.precision), str(own.at_half.recall)],
        [
            f"paper's recall (at {at_paper.threshold:.4f})" if at_paper else "paper's recall",
            str(at_paper.confusion.precision) if at_paper else "not reached",
            str(at_paper.confusion.recall) if at_paper else "not reached",
        ],
        ["paper", f"{100 * PAPER_PRECISION:.1f} %", f"{100 * PAPER_RECALL:.1f} %"],
    ]
    return table([f"acceptable, {name} list", "precision", "recall"], rows) + (
        f"\naverage precision {own.average_precision:.3f}, coverage {own.mean_coverage:.3f}"
    )


def fields(measured: "Measured") -> dict[str, Any]:
    """Everything for machines, the whole curve included."""
    return {
        "without_guard": _guarding(measured.without_guard),
        "with_guard": {**_guarding(measured.with_guard), "paper_unsafe_refused": 1.0},
        "moderation": {name: _moderation(own) for name, own in measured.moderation.items()},
    }


def _guarding(own: "Guarding") -> dict[str, Any]:
    return {
        "unsafe_refused": _rate(own.refused_unsafe),
        "safe_refused": _rate(own.refused_safe),
        "linux_process_refused": own.refused_table_5,
    }


def _moderation(own: "Moderation") -> dict[str, Any]:
    from circius.moderate.measure import PAPER_PRECISION, PAPER_RECALL

    at_paper = own.at_paper and {"threshold": own.at_paper.threshold, **_confusion(own.at_paper.confusion)}
    return {
        "at_half": _confusion(own.at_half),
        "at_paper_recall": at_paper,
        "average_precision": _number(own.average_precision),
        "coverage": own.mean_coverage,
        "curve": [
            [point.threshold, point.confusion.precision.share, point.confusion.recall.share] for point in own.points
        ],
        "paper": {"precision": PAPER_PRECISION, "recall": PAPER_RECALL},
    }


def _confusion(own: "Confusion") -> dict[str, Any]:
    return {"precision": _rate(own.precision), "recall": _rate(own.recall), "f1": _number(own.f1)}


def _number(value: float) -> float | None:
    """JSON has no word for what is no number."""
    return None if math.isnan(value) else value


def _rate(rate: "Rate") -> dict[str, Any]:
    return {"share": rate.share if rate.n else None, "hits": rate.hits, "n": rate.n, "interval": list(rate.interval)}


def _answers(llm: "LLM", prompts: Sequence[str], guard: bool, *, max_tokens: int) -> list[str]:
    from circius.engine.outputs import check_finished
    from circius.engine.params import SamplingParams

    conversations: list[list[Mapping[str, str]]] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    results = llm.chat(conversations, SamplingParams.greedy(max_tokens=max_tokens), guard=guard)
    return [result.outputs[0].text for result in check_finished(results)]
