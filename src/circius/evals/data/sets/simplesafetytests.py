"""SimpleSafetyTests: 100 prompts that no assistant should comply with."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import csv_rows


@dataclass(frozen=True, kw_only=True)
class SafetyTestDoc:
    """An unsafe prompt, one of five areas of harm, and whether it asks for advice or for action."""

    id: str
    area: str
    category: str
    prompt: str


def read_simplesafetytests(home: Path | None = None) -> list[SafetyTestDoc]:
    """The 100 prompts, 20 of each area."""
    return [
        SafetyTestDoc(
            id=row.text("id"),
            area=row.text("harm_area"),
            category=row.text("category"),
            prompt=row.text("prompts_final"),
        )
        for row in csv_rows("simplesafetytests/SimpleSafetyTests_test_cases.csv", home)
    ]
