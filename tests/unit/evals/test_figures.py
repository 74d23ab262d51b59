"""From items to figures: which are drawn, how they are grouped, what stands beside them."""

import random
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.beside import group_figures, published, standing
from circius.evals.charts import Bar, Curve, bar_chart, curve_chart
from circius.evals.item import Answer, Ask, Choices, Item, Text
from circius.evals.lines import Outcome
from circius.evals.questions import Exam
from circius.evals.results import result_of
from circius.evals.show import published_number
from circius.evals.subset import drawn
from circius.evals.task import Judged, Scored, Sources, Task, means
from circius.evals.tasks import SUITES

ITEMS = [Item(id=str(n), doc=n, part="large" if n < 80 else "small") for n in range(100)]


def _task(**given: Any) -> Task:
    def asks(item: Item, _: object) -> tuple[Ask, ...]:
        return (Choices.after("x" * 100 + f"item {item.doc}", [" a", " b"]),)

    def judge(item: Item, answers: Sequence[Answer]) -> Judged:
        return Judged(values={"raw": 1.0})

    whole: dict[str, Any] = {
        "name": "own", "title": "Own", "about": "of these tests", "items": lambda sources: ITEMS, "asks": asks,
        "judge": judge, "primary": "raw",
    }  # fmt: skip
    return Task(**{**whole, **given})


def test_a_larger_subset_holds_the_smaller_one() -> None:
    few, more = (drawn(ITEMS, n, seed=3, name="own") for n in (10, 40))
    assert {item.id for item in few} < {item.id for item in more}
    assert [item.doc for item in more] == sorted(item.doc for item in more)
    assert drawn(ITEMS, 10, seed=4, name="own") != few
    assert drawn(ITEMS, None, seed=3, name="own") == drawn(ITEMS, 100, seed=3, name="own") == ITEMS
    with pytest.raises(InvalidInputError):
        drawn(ITEMS, 0, seed=3, name="own")


def test_a_balanced_subset_takes_as_many_of_each_part() -> None:
    few = drawn(ITEMS, 10, seed=0, name="own", is_balanced=True)
    assert sum(item.part == "small" for item in few) == 5
    many = drawn(ITEMS, 60, seed=0, name="own", is_balanced=True)
    assert sum(item.part == "small" for item in many) == 20  # all there are


def test_a_subset_is_unbiased() -> None:
    counts = [0] * 100
    for seed in range(400):
        for item in drawn(ITEMS, 25, seed=seed, name="own"):
            counts[item.doc] += 1
    assert sum(counts) == 400 * 25
    assert 60 < min(counts) <= max(counts) < 140


def test_another_question_has_another_digest() -> None:
    def digest(**given: Any) -> str:
        return Exam.of(_task(**given), Sources()).digest()

    assert digest() == digest(title="Other", judge=None)
    assert digest() != digest(asks=lambda item, _: (Choices.after("y", [" a", " b"]),))
    assert digest() != digest(items=lambda sources: ITEMS[:-1])


def test_groups_depend_on_questions_and_streams_alone() -> None:
    """What all prompts of a group begin with counts once, and answers close a group when there are enough."""
    exam = Exam.of(_task(), Sources())
    assert [[q.item.id for q in group] for group in exam.groups(4)] == [[item.id for item in ITEMS]]
    texts = Exam.of(_task(asks=lambda item, _: (Text(prompt="p", max_tokens=9, n=3, temperature=1.0),)), Sources())
    assert [len(group) for group in texts.groups(2)] == [3] * 33 + [1]  # of at least 4 * 2 answers
    long = Exam.of(_task(asks=lambda item, _: (Text(prompt=f"{item.id}{'x' * 20_000}", max_tokens=9),)), Sources())
    assert [len(group) for group in long.groups(16)] == [2] * 50


def test_two_items_of_one_name_are_refused() -> None:
    with pytest.raises(Exception, match="same id"):
        Exam.of(_task(items=lambda sources: [ITEMS[0], ITEMS[0]]), Sources())


def test_means_over_items_parts_and_clusters() -> None:
    scored = [Scored(id=str(n), values={"raw": float(n < 6)}, part="ab"[n % 2]) for n in range(10)]
    estimates = means(scored)
    assert estimates["raw"].value == pytest.approx(0.6)
    assert estimates["macro_raw"].value == pytest.approx((3 / 5 + 3 / 5) / 2)
    assert "macro_raw" not in means([*scored, Scored(id="x", values={"raw": 1.0}, part="alone")])
    own = [Scored(id=str(n), values={"f1": random.Random(n // 5).random()}, cluster=str(n // 5)) for n in range(50)]
    alone = [Scored(id=one.id, values=one.values) for one in own]
    together, apart = means(own)["f1"], means(alone)["f1"]
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_results_say_what_a_reader_must_know() -> None:
    exam = Exam.of(_task(primary="macro_raw", notes=("a caution",)), Sources(), limit=4)
    outcomes = [
        Outcome(id="0", values={"raw": 1.0}, part="large", n_cut=7),
        Outcome(id="1", values={"raw": 0.0}, part="small"),
        Outcome(id="2", values={}, left_out="it is odd"),
        Outcome(id="3", values={"raw": 1.0}, part="large"),
    ]
    result = result_of(exam, outcomes)
    assert result["primary"] == "raw"
    assert result["figures"]["raw"]["value"] == pytest.approx(2 / 3)
    assert 0 <= result["figures"]["raw"]["low"] <= result["figures"]["raw"]["high"] <= 1
    assert result["notes"] == [
        "a caution",
        "1 of 4 items do not count: it is odd",
        "prompts of 1 of 4 items did not fit into the context and lost tokens behind BOS",
        "too few items of each part for a mean over the parts: the mean over all items stands here",
        "4 of 100 items",
    ]


@pytest.mark.parametrize(
    ("task", "metric", "model", "shown"),
    [
        ("hellaswag", "per_character", "mistral-7b-v0.1", "81.3"),
        ("piqa", "per_character", "mistral-7b-v0.1", "83.0"),
        ("gsm8k", "maj@8", "mistral-7b-v0.1", "52.2"),
        ("gsm8k", "maj@1", "mistral-7b-v0.1", "39.35"),
        ("gsm8k", "maj@2", "mistral-7b-v0.1", "-"),
        ("math", "maj@4", "llama-2-13b", "6.0"),
        ("naturalquestions", "exact_match", "mistral-7b-v0.1", "28.8"),
        ("boolq", "minus_unconditional", "mistral-7b-v0.1", "83.52"),
        ("bbh", "macro_exact_match", "mistral-7b-v0.1", "≈38.5"),
        ("bbh_cot", "macro_exact_match", "mistral-7b-v0.1", "-"),
        ("siqa", "per_character", "mistral-7b-v0.1", "-"),
        ("wikitext2_chunks", "perplexity", "mistral-7b-v0.1", "5.6918"),
        ("perplexity", "perplexity", "mistral-7b-v0.1", "-"),
        ("wikitext2", "word_perplexity", "mistral-7b-v0.1", "8.042"),
        ("mbpp", "pass@1", "code-llama-7b", "52.5"),
    ],
)
def test_published_figures_stand_beside_what_they_belong_to(task: str, metric: str, model: str, shown: str) -> None:
    assert published_number(published(task, metric, model)) == shown


def test_where_ours_stands_to_a_published_figure() -> None:
    figure = published("hellaswag", "per_character", "mistral-7b-v0.1")
    for low, high, stands in ((0.80, 0.82, "inside"), (0.70, 0.81, "below"), (0.82, 0.9, "above")):
        assert standing({"low": low, "high": high}, figure, "%") == stands
    assert standing({"low": 0.1, "high": 0.2}, None, "%") == ""


def _results(value: float) -> dict[str, Any]:
    figure = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 100, "method": "Wilson"}
    return {"primary": "raw", "unit": "%", "figures": {"raw": figure}}


def test_groups_of_tasks_have_means_and_llamas_of_their_size() -> None:
    tasks = {name: _results(0.601) for name in SUITES["paper"].tasks}
    groups = {group.name: group for group in group_figures(tasks)}
    assert set(groups) == {"mmlu", "commonsense", "knowledge", "reading", "maths", "code", "bbh", "agieval"}
    assert groups["mmlu"].value == pytest.approx(60.1)
    assert str(groups["mmlu"].equivalent) == "24.5B (3.5×)"
    assert groups["commonsense"].high - groups["commonsense"].low == pytest.approx(2 / 8**0.5)
    assert groups["maths"].equivalent is not None
    assert groups["maths"].equivalent.kind == "undefined"
    assert groups["code"].equivalent is not None
    assert groups["code"].equivalent.kind == "above"


def test_a_group_with_gaps_has_no_llama() -> None:
    (group,) = group_figures({"boolq": _results(0.8)})
    assert group.missing == ("quac",)
    assert group.equivalent is None


def test_charts_are_drawings() -> None:
    bars = [Bar(height=60.1, low=59, high=61, note="<odd>"), Bar(height=None)]
    chart = bar_chart("Groups & more", ["one", "two"], [("ours", bars), ("theirs", [Bar(height=5), Bar(height=90)])])
    root = ET.fromstring(chart.replace("&", "&amp;") if "&amp;" not in chart else chart)
    assert len(root.findall(".//rect")) == 3
    curve = Curve(
        title="MMLU",
        points=[(7, 45.3), (13, 54.8), (70, 68.9)],
        own_size=7.2,
        own_score=60.1,
        equivalent=24.5,
        label="x",
    )
    drawing = ET.fromstring(curve_chart(curve))
    places = [float(point.split(",")[0]) for point in drawing.find(".//polyline").attrib["points"].split()]  # type: ignore[union-attr]
    assert places == sorted(places)
    assert len(drawing.findall(".//circle")) == 4
