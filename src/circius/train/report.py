"""A run as one HTML file that needs nothing from outside: curves, samples, what it read, how it was configured."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from circius.base.errors import InvalidInputError, StorageError
from circius.train.charts import Point, Series, line_chart, smoothed
from circius.train.metrics import METRICS_FILE, read_metrics
from circius.train.run_folder import REPORT_FILE, read_record
from circius.train.words import duration
from circius.weights.target import new_file

Record = Mapping[str, Any]


def write_report(folder: Path) -> Path:
    """Writes RUN/report.html of what a run has written down so far, and returns where it is.

    Raises:
        InvalidInputError: the folder is no run's.
        StorageError: it cannot be written.
    """
    run = read_record(folder)
    if run is None:
        raise InvalidInputError(f"{folder} is not the folder of a run: there is nothing to report")
    page = render(folder.resolve().name, run, read_metrics(folder / METRICS_FILE)).encode()
    with new_file(folder / REPORT_FILE, n_bytes=len(page), overwrite=True) as path:
        try:
            path.write_bytes(page)
        except OSError as error:
            raise StorageError(f"cannot write {folder / REPORT_FILE}: {error.strerror}") from error
    return folder / REPORT_FILE


def render(name: str, run: Record, lines: Sequence[Record]) -> str:
    """The page of a run called `name`. run: what run.json says. lines: of its metrics."""
    kinds: dict[str, list[Record]] = {"train": [], "eval": [], "sample": [], "note": []}
    for line in lines:
        kinds.setdefault(str(line.get("kind")), []).append(line)
    train, evals = kinds["train"], kinds["eval"]
    style = files("circius.train").joinpath("report.css").read_text(encoding="utf-8")
    body = [
        f"<h1>{escape(name)}</h1><p class=about>{escape(_about(run, train))}</p>",
        _tiles(run, train, evals),
        f'<h2>Curves</h2><div class="charts">{"".join(_charts(train, evals))}</div>' if train else "",
        _samples(kinds["sample"], is_chat=run["config"]["kind"] != "pretrain"),
        _sources(run),
        _notes(run, kinds["note"]),
        "<h2>Configuration</h2>",
        _pre("The whole configuration", run["config"]),
        _pre("The machine", run.get("environment", {})),
        _pre("When it was at work", run.get("sessions", [])),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: a run of circius</title><style>{style}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _about(run: Record, train: Sequence[Record]) -> str:
    config = run["config"]
    model = config["model"] if isinstance(config["model"], str) else "random weights"
    sessions = run.get("sessions") or [{}]
    step, why = train[-1]["step"] if train else 0, sessions[-1].get("why")
    return f"{config['kind']} of {model}: step {step:,} of {run.get('n_steps', 0):,}, {why or 'at work'}"


def _tiles(run: Record, train: Sequence[Record], evals: Sequence[Record]) -> str:
    tiles: list[tuple[str, str, str]] = [("parameters", _count(run.get("n_parameters", 0)), "")]
    if run.get("n_trained") not in (None, run.get("n_parameters")):
        tiles.append(("trained", _count(run["n_trained"]), ""))
    if train:
        seconds = sum(line["seconds"] for line in train)
        steady = train[len(train) // 10 :]
        memory = max((line["memory_bytes"] or 0 for line in train), default=0)
        shares = [line["mfu"] for line in steady if line.get("mfu")]
        last = _number(train[-1]["loss"])
        tiles += [
            ("loss of the last step", _short(last), ""),
            ("tokens read", _count(sum(line["tokens"] for line in train)), ""),
            ("time in steps", duration(seconds), ""),
            ("speed", f"{statistics.median(line['tokens_per_s'] for line in steady):,.0f}", "tok/s, median"),
            ("memory", f"{memory / 2**30:.2f}", "GiB at most"),
        ]
        if shares:
            tiles.append(("MFU", f"{statistics.median(shares):.0%}", "median"))
    for name, own in _by_name(evals):
        before = own[0] if own[0]["step"] == 0 else {}
        best = min(own, key=lambda line: _number(line["loss"]))
        tiles.append((f"{name}: best loss", _short(_number(best["loss"])), f"step {best['step']:,}"))
        for field, word in (("perplexity", "perplexity"), ("bits_per_byte", "bits per byte"), ("accuracy", "accuracy")):
            if field in best:
                unit = f"{_short(_number(before[field]))} before" if field in before else ""
                tiles.append((f"{name}: {word}", _short(_number(best[field])), unit))
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{f' <small>{escape(unit)}</small>' if unit else ''}</dd></div>"
        for name, value, unit in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _charts(train: Sequence[Record], evals: Sequence[Record]) -> Iterable[str]:
    losses = _points(train, "loss")
    series = [
        Series(name="each step", points=losses, style="faint"),
        Series(name="smoothed", points=smoothed(losses)),
        *(
            Series(name=name, points=_points(own, "loss"), colour=2 + place % 3, style="dots")
            for place, (name, own) in enumerate(_by_name(evals))
        ),
    ]
    yield line_chart("Loss", series)
    yield line_chart("Learning rate", [Series(name="lr", points=_points(train, "lr"))])
    norms = _points(train, "grad_norm")
    yield line_chart(
        "Gradient norm, before clipping",
        [
            Series(name="each step", points=norms, colour=4, style="faint"),
            Series(name="smoothed", points=smoothed(norms), colour=4),
        ],
        is_log=True,
    )
    speeds = _points(train, "tokens_per_s")
    yield line_chart(
        "Tokens a second",
        [
            Series(name="each step", points=speeds, colour=3, style="faint"),
            Series(name="smoothed", points=smoothed(speeds), colour=3),
        ],
    )
    for field, title in (("margin", "Margin of rewards"), ("accuracy", "Pairs in the right order")):
        own = [
            Series(name=name, points=_points(lines, field), colour=2, style="dots") for name, lines in _by_name(evals)
        ]
        yield line_chart(title, [Series(name="training", points=smoothed(_points(train, field))), *own])


def _samples(samples: Sequence[Record], *, is_chat: bool) -> str:
    looks = [(step, list(own)) for step, own in groupby(samples, key=lambda line: line["step"])]
    if not looks:
        return ""
    last, look = len(looks) - 1, "text chat" if is_chat else "text"
    opened = {0, last // 2, last}
    parts = ["<h2>Samples</h2>"]
    for place, (step, own) in enumerate(looks):
        rows = "".join(
            f"<tr><th>{escape(str(line['how']))}</th>"
            f'<td class="{look}"><b>{escape(str(line["prompt"]))}</b>{escape(str(line["text"]))}</td></tr>'
            for line in own
        )
        is_open = " open" if place in opened else ""
        parts.append(
            f'<details class="card"{is_open}><summary>Step {step:,}</summary>'
            f'<div class="wide samples"><table>{rows}</table></div></details>'
        )
    return "".join(parts)


def _sources(run: Record) -> str:
    sources = run.get("sources") or []
    if not sources:
        return ""
    names = list(sources[0])
    head = "".join(
        f"<th{' class=number' if isinstance(sources[0][name], int) else ''}>{escape(name)}</th>" for name in names
    )
    rows = "".join("<tr>" + "".join(_cell(source.get(name)) for name in names) + "</tr>" for source in sources)
    return f'<h2>What it read</h2><div class="card wide"><table><tr>{head}</tr>{rows}</table></div>'


def _notes(run: Record, lines: Sequence[Record]) -> str:
    said = [*run.get("notes", []), *(f"step {line['step']:,}: {line['text']}" for line in lines)]
    if not said:
        return ""
    rows = "".join(f'<tr><td class="text">{escape(str(sentence))}</td></tr>' for sentence in said)
    return f'<h2>Notes</h2><div class="card wide"><table>{rows}</table></div>'


def _pre(title: str, content: Any) -> str:
    text = escape(json.dumps(content, indent=2, ensure_ascii=False))
    return f'<details class="card"><summary>{escape(title)}</summary><pre>{text}</pre></details>'


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"


def _points(lines: Sequence[Record], field: str) -> list[Point]:
    return [(line["step"], _number(line[field])) for line in lines if line.get(field) is not None]


def _by_name(evals: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    names = dict.fromkeys(str(line["name"]) for line in evals)
    return [(name, [line for line in evals if line["name"] == name]) for name in names]


def _number(value: Any) -> float:
    """What a line says; numbers that JSON does not have stand there as text."""
    return float(value)


def _count(value: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)


def _short(value: float) -> str:
    return f"{value:.4g}"
