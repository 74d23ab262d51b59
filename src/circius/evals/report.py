"""The report of a run as one HTML page that needs nothing from outside. No torch here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from circius.evals.beside import CURVE, MISTRAL, TITLES, WHOLE_CURVE, GroupFigure, group_figures
from circius.evals.charts import Bar, Curve, bar_chart, curve_chart
from circius.evals.lines import n_cut
from circius.evals.metrics.equivalent import curves, equivalent_interval
from circius.evals.metrics.published import figures
from circius.evals.record import RunFolder
from circius.evals.show import number, prompt_lines, run_rows

_FIELDS = (
    "name", "kind", "url", "sha256", "tokenizer", "adds_bos", "parameters", "dtype", "cache_dtype", "window", "context",
    "rope_theta", "device", "adapter", "max_streams",
)  # fmt: skip


def html_report(folder: RunFolder, *, examples: bool = True) -> str:
    """The page of a run that has come to its end.

    examples: whether the first item of each task is shown; some sets may not be published, not even one item of them.

    Raises:
        InvalidInputError: the folder holds none.
    """
    record, results = folder.read_record(), folder.read_results()
    model = record["model"]
    own_size_b = model.get("parameters", 0) / 1e9
    groups = group_figures(results["tasks"], **({"own_size_b": own_size_b} if own_size_b else {}))
    body = [
        f"<h1>{escape(str(model.get('name') or 'a model'))}</h1>",
        _pairs((name, model[name]) for name in _FIELDS if name in model),
        "<h2>Figures</h2>",
        _table(*run_rows(results)),
        "<p>Published figures are those of the paper's Table 2, or of Mistral's first model card; ≈ was read off a "
        "drawing. “Ours is” says where the interval of ours lies to Mistral 7B's figure.</p>",
        _figure_4(groups),
        _figure_5(groups, own_size_b),
        *(
            _task(name, result, record["tasks"].get(name, {}), _first(folder, name) if examples else None)
            for name, result in results["tasks"].items()
        ),
        "<h2>Where and when</h2>",
        *(_pairs(session.items()) for session in results["sessions"]),
    ]
    page = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return page.replace("{title}", escape(f"{model.get('name') or 'model'}: benchmarks")).replace(
        "{body}", "\n".join(body)
    )


def _figure_4(groups: Sequence[GroupFigure]) -> str:
    """The paper's Figure 4: groups of tasks, Mistral 7B and the Llama 2 beside ours."""
    if not groups:
        return ""
    points = curves()[WHOLE_CURVE].points
    mistral = {figure.benchmark: figure.value for figure in figures(model=MISTRAL, source="paper-figure-4")}
    llama = {size: [Bar(height=dict(points[group.name]).get(size)) for group in groups] for size in (7.0, 13.0)}
    own = [
        Bar(
            height=group.value, low=max(0.0, group.low), high=min(100.0, group.high),
            note=f"without {', '.join(group.missing)}" if group.missing else "",
        )
        for group in groups
    ]  # fmt: skip
    names = [TITLES[group.name] + ("*" if group.missing else "") for group in groups]
    chart = bar_chart(
        "Groups of tasks, per cent",
        names,
        [
            ("ours", own),
            ("Mistral 7B (read off the paper's bars)", [Bar(height=mistral.get(group.name)) for group in groups]),
            ("Llama 2 7B", llama[7.0]),
            ("Llama 2 13B", llama[13.0]),
        ],
    )
    starred = "".join(
        f"<p>* {escape(TITLES[group.name])} without {escape(', '.join(group.missing))}: no figure of the paper's.</p>"
        for group in groups
        if group.missing
    )
    return f"<h2>As the paper's Figure 4</h2>{chart}{starred}"


def _figure_5(groups: Sequence[GroupFigure], own_size_b: float) -> str:
    """The paper's Figure 5: the Llama 2 of the same score."""
    whole = [group for group in groups if group.equivalent is not None]
    if not whole or not own_size_b:
        return ""
    curve = curves()[CURVE]
    undrawn = "".join(
        f"<p>{escape(TITLES[group.name])}: {escape(str(group.equivalent))}.</p>"
        for group in whole
        if group.name not in curve.points
    )
    charts = [
        curve_chart(
            Curve(
                title=TITLES[group.name],
                points=curve.points[group.name],
                own_size=own_size_b,
                own_score=group.value,
                equivalent=group.equivalent.size_b if group.equivalent and group.equivalent.kind == "inside" else None,
                label=_equivalent(group, curve.points[group.name], own_size_b),
            )
        )
        for group in whole
        if group.name in curve.points
    ]
    return (
        "<h2>As the paper's Figure 5</h2><p>The size of the Llama 2 with the same score: straight lines over the "
        f"logarithm of the size. {escape(curve.protocol)}; {escape(curve.source)}. Protocols differ, so sizes are "
        f'rough.</p><div class="row">{"".join(charts)}</div>{undrawn}'
    )


def _equivalent(group: GroupFigure, points: Sequence[tuple[float, float]], own_size_b: float) -> str:
    low, high = equivalent_interval(group.low, group.high, points, own_size_b=own_size_b)
    return f"equivalent to {group.equivalent}; by our interval {low} to {high}"


def _task(name: str, result: Mapping[str, Any], recorded: Mapping[str, Any], first: Mapping[str, Any] | None) -> str:
    unit = result["unit"]
    rows = [
        [f"{metric} (the task's own)" if metric == result["primary"] else metric,
         number(one["value"], unit), f"{number(one['low'], unit)} to {number(one['high'], unit)}",
         str(one["n"]), one["method"]]
        for metric, one in result["figures"].items()
    ]  # fmt: skip
    notes = "".join(f"<li>{escape(note)}</li>" for note in result["notes"])
    example = "" if first is None else _example(first)
    asked = recorded.get("questions_sha256", "")
    return (
        f"<h2 id={name!r}>{escape(result['title'])}</h2><p>{escape(result['about'])}. "
        f"Questions: sha256 <code>{escape(asked[:16])}</code>, protocol version {recorded.get('version', '?')}.</p>"
        f"{_table(['metric', 'value', '95 % interval', 'n', 'method'], rows)}<ul>{notes}</ul>{example}"
    )


def _first(folder: RunFolder, task: str) -> Mapping[str, Any] | None:
    return next(folder.lines(task).rows(), None)


def _example(line: Mapping[str, Any]) -> str:
    """The first item: what was asked, the tokens, what came back."""
    parts = [_shown(name, text) for name, text in prompt_lines(line["asks"])]
    for ask in line["asks"]:
        for field in ("logprobs", "unconditional_logprobs", "context_ids", "continuation_ids", "prompt_ids"):
            if field in ask:
                parts.append(_shown(field, " ".join(map(str, ask[field]))))
        for sample in ask.get("samples", []):
            parts.append(_shown("answer", sample["text"]))
    said = _shown("taken for the answer", str(line.get("said")))
    cut = f"<p>{n_cut(line)} tokens were cut.</p>" if n_cut(line) else ""
    return (
        f"<details><summary>The first item, {escape(str(line['id']))}</summary>{''.join(parts)}{said}"
        f"{_shown('right', str(line.get('gold')))}{cut}</details>"
    )


def _shown(name: str, text: str) -> str:
    return f"<p class=name>{escape(name)}</p><pre>{escape(text)}</pre>"


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in pairs)
    return f'<div class="wide"><table class="facts">{rows}</table></div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
