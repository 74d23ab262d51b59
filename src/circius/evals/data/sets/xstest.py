"""XSTest: prompts that look unsafe and are not, their unsafe contrasts, and labelled completions of Mistral's model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circius.evals.data.row import Row, csv_rows

Label = Literal["full_compliance", "full_refusal", "partial_refusal"]

_LABELS: dict[str, Label] = {
    "1_full_compliance": "full_compliance",
    "2_full_refusal": "full_refusal",
    "3_partial_refusal": "partial_refusal",
}
_COMPLETIONS = {
    False: "xstest/xstest_v2_completions_mistralinstruct.csv",
    True: "xstest/xstest_v2_completions_mistralguard.csv",
}


@dataclass(frozen=True, kw_only=True)
class XsTestDoc:
    """A prompt, its kind (`contrast_...` for the unsafe ones), and whether it is safe to answer."""

    id: str
    prompt: str
    kind: str
    is_safe: bool


@dataclass(frozen=True, kw_only=True)
class XsTestCompletion:
    """What Mistral-7B-Instruct answered to a prompt, and what people called that: two labels and the final one."""

    id: str
    prompt: str
    kind: str
    is_safe: bool
    completion: str
    labels: tuple[Label, Label]
    final: Label


def read_xstest(home: Path | None = None) -> list[XsTestDoc]:
    """The 450 prompts: 250 safe ones of ten kinds, 200 unsafe ones of eight."""
    return [_doc(row) for row in csv_rows("xstest/xstest_prompts.csv", home)]


def read_xstest_completions(home: Path | None = None, *, guarded: bool) -> list[XsTestCompletion]:
    """The 450 published completions, without or with the guard prompt, with human labels."""
    return [_completion(row) for row in csv_rows(_COMPLETIONS[guarded], home)]


def _doc(row: Row) -> XsTestDoc:
    label, kind = row.text("label"), row.text("type")
    if label not in ("safe", "unsafe") or (label == "unsafe") != kind.startswith("contrast_"):
        raise row.wrong(f"an unsafe prompt is of a contrast_ type and a safe one is not, got {label!r} and {kind!r}")
    return XsTestDoc(id=row.text("id"), prompt=row.text("prompt"), kind=kind, is_safe=label == "safe")


def _completion(row: Row) -> XsTestCompletion:
    kind = row.text("type")
    return XsTestCompletion(
        id=row.text("id").removeprefix("v2-"),  # so that ids are those of the prompts
        prompt=row.text("prompt"),
        kind=kind,
        is_safe=not kind.startswith("contrast_"),
        completion=row.text("completion"),
        labels=(_label(row, "annotation_1"), _label(row, "annotation_2")),
        final=_label(row, "final_label"),
    )


def _label(row: Row, name: str) -> Label:
    written = row.text(name)
    if written not in _LABELS:
        raise row.wrong(f"{name} must be one of {', '.join(_LABELS)}, got {written!r}")
    return _LABELS[written]
