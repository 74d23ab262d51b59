"""Figures of others: each has a source and a mark, and the paper's are the paper's."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.metrics.published import MARKS, figures


def test_every_figure_says_where_it_is_from() -> None:
    for figure in figures():
        assert figure.mark in MARKS
        assert figure.source.title
        assert 0 <= figure.value < 10_000


def test_table_2() -> None:
    ours = {figure.benchmark: figure for figure in figures(model="mistral-7b-v0.1", source="paper-table-2")}
    assert {name: figure.value for name, figure in ours.items()} == {
        "mmlu": 60.1, "hellaswag": 81.3, "winogrande": 75.3, "piqa": 83.0, "arc_easy": 80.0, "arc_challenge": 55.5,
        "naturalquestions": 28.8, "triviaqa": 69.9, "humaneval": 30.5, "mbpp": 47.5, "math": 13.1, "gsm8k": 52.2,
    }  # fmt: skip
    assert (ours["gsm8k"].metric, ours["math"].metric) == ("maj@8", "maj@4")
    assert len({figure.model for figure in figures(source="paper-table-2")}) == 4


def test_what_voting_is_worth() -> None:
    """The model card has one sample where the paper has a vote."""
    for benchmark, gain in (("gsm8k", 12.85), ("math", 1.16)):
        card, paper = (
            next(iter(figures(model="mistral-7b-v0.1", benchmark=benchmark, source=source)))
            for source in ("model-card", "paper-table-2")
        )
        assert card.metric == "maj@1"
        assert paper.value - card.value == pytest.approx(gain)


def test_approximate_and_unverified_figures_say_so() -> None:
    assert all(figure.is_approximate for figure in figures(source="paper-figure-4"))
    assert {figure.mark for figure in figures(source="gemma-report")} == {"unverified"}
    [tables] = figures(benchmark="mt_bench", source="paper-table-3", model="mistral-7b-instruct-v0.1")
    assert (tables.value, tables.plus_minus, tables.unit) == (6.84, 0.07, "of 10")


def test_nothing_known_is_no_error_but_a_wrong_source_is() -> None:
    assert figures(benchmark="no such benchmark") == ()
    with pytest.raises(InvalidInputError, match="no figures from 'blog'"):
        figures(source="blog")
