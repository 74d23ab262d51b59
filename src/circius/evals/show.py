"""Figures as text: the table of a run, and that of two runs compared. No torch here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circius.evals.beside import MISTRAL, MODELS, published, standing
from circius.evals.metrics.paired import Paired
from circius.evals.metrics.published import Figure


def number(value: float, unit: str) -> str:
    """A figure with as many digits as it deserves.

    >>> number(0.8127, "%"), number(5.69184, "perplexity")
    ('81.3', '5.692')
    """
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.4g}"


def published_number(figure: Figure | None) -> str:
    """A published figure with the digits that it was published with; one that was read off a drawing has a sign."""
    if figure is None:
        return "-"
    if figure.is_approximate:
        return f"≈{figure.value:g}"
    return (
        f"{figure.value:.1f}" if figure.unit == "%" and round(figure.value, 1) == figure.value else f"{figure.value:g}"
    )


def run_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a run's table: ours with its interval, and what others have published."""
    header = ["task", "metric", "ours", "95 % interval", "n", *MODELS.values(), "ours is"]
    rows = []
    for name, result in results["tasks"].items():
        unit, metric = result["unit"], result["primary"]
        own = result["figures"].get(metric)
        beside = {model: published(name, metric, model) for model in MODELS}
        interval = "-" if own is None else f"{number(own['low'], unit)} to {number(own['high'], unit)}"
        rows.append(
            [
                name,
                metric,
                "-" if own is None else number(own["value"], unit),
                interval if own is None or own["low"] < own["high"] else "-",
                str(result["n"]),
                *(published_number(figure) for figure in beside.values()),
                "" if own is None else standing(own, beside[MISTRAL], unit),
            ]
        )
    return header, rows


def compared_rows(compared: Mapping[str, tuple[str, str, Paired]]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of two runs' table; `compared` maps a task to its metric, unit and comparison."""
    header = ["task", "metric", "first", "second", "difference", "95 % interval", "better", "p", "n"]
    rows = []
    for name, (metric, unit, paired) in compared.items():
        rows.append(
            [
                name,
                metric,
                number(paired.first, unit),
                number(paired.second, unit),
                signed(paired.difference, unit),
                f"{signed(paired.low, unit)} to {signed(paired.high, unit)}",
                f"{paired.n_first_better} : {paired.n_second_better}",
                f"{paired.p_value:.3g}",
                str(paired.n),
            ]
        )
    return header, rows


def signed(value: float, unit: str) -> str:
    """A difference with its sign.

    >>> signed(0.0123, "%"), signed(-0.5, "perplexity")
    ('+1.2', '-0.5')
    """
    return f"{100 * value:+.1f}" if unit == "%" else f"{value:+.4g}"


def task_notes(results: Mapping[str, Any]) -> Iterable[str]:
    """What a reader of the table must know, task by task."""
    for name, result in results["tasks"].items():
        for note in result["notes"]:
            yield f"{name}: {note}"


def prompt_lines(asks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What was asked about an item, as names and texts; `asks` are those of a line, or of `questions.describe_ask`."""
    shown: list[tuple[str, str]] = []
    for ask in asks:
        if ask["kind"] == "choices":
            contexts = [ask["context"]] if "context" in ask else list(ask["contexts"])
            shown += [("context", context) for context in contexts]
            shown += [("continuation", continuation) for continuation in ask["continuations"]]
            if ask["unconditional"] is not None:
                shown.append(("unconditional context", ask["unconditional"]))
        elif ask["kind"] == "text":
            shown.append(("prompt", ask["prompt"]))
            drawn = "" if not ask["temperature"] else f", temperature {ask['temperature']}, top-p {ask['top_p']}"
            settings = f"{ask['n']} of at most {ask['max_tokens']} tokens, stops {list(ask['stop'])}{drawn}"
            shown.append(("answers", settings))
        else:
            shown.append(("tokens", " ".join(map(str, ask["ids"]))))
            shown.append(("known", str(ask["n_known"])))
    return shown
