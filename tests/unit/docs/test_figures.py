"""The figures in the documents are those that the code draws."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[3] / "docs"
RUNS = ("story", "story-chat", "demo-lora")


def script(name: str) -> ModuleType:
    """A program that lies in docs/."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.quick
def test_the_window_figure_is_up_to_date() -> None:
    drawn = script("make_figures").figure()
    assert (DOCS / "window.svg").read_text() == drawn, "run python docs/make_figures.py"


@pytest.mark.parametrize("run", RUNS)
def test_the_curves_are_those_of_the_metrics(run: str) -> None:
    drawn = script("make_curves").curve(DOCS / "results" / run)
    assert (DOCS / "results" / run / "loss.svg").read_text() == drawn, "run python docs/make_curves.py"
