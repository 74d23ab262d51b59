"""Draws docs/results/RUN/loss.svg from the metrics that the run left there: each step, smoothed, and held out.

python docs/make_curves.py
"""

import re
from pathlib import Path
from typing import Any

from circius.train.charts import HEIGHT, WIDTH, Series, line_chart, smoothed
from circius.train.metrics import METRICS_FILE, read_metrics

RESULTS = Path(__file__).parent / "results"
STYLE = """
text { fill: #5c6675; font: 11px system-ui, sans-serif; } .grid { stroke: #eceae4; } .axis { stroke: #c9c6bd; }
rect { fill: #ffffff; } polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.faint { stroke-width: 1; opacity: 0.35; } .c1 { stroke: #1f62c9; } .c2 { stroke: #c2570c; }
circle { stroke: #ffffff; } circle.c2 { fill: #c2570c; }
"""


def curve(folder: Path) -> str:
    """The picture of a run's losses, to stand alone."""
    lines = read_metrics(folder / METRICS_FILE)
    steps = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    evals = [line for line in lines if line["kind"] == "eval"]
    names = dict.fromkeys(line["name"] for line in evals)
    chart = line_chart(
        f"Loss of {folder.name}, a token: each step, smoothed, and held out (dots)",
        [
            Series(name="each step", points=steps, style="faint"),
            Series(name="smoothed", points=smoothed(steps)),
            *(Series(name=name, points=_losses(evals, name), colour=2, style="dots") for name in names),
        ],
    )
    drawn = re.search(r"<svg (.*?)>(.*)</svg>", chart, re.DOTALL)
    assert drawn is not None
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {drawn[1]}><style>{STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}"/>{drawn[2]}</svg>\n'
    )


def _losses(evals: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in evals if line["name"] == name]


def main() -> None:
    for metrics in sorted(RESULTS.glob(f"*/{METRICS_FILE}")):
        (metrics.parent / "loss.svg").write_text(curve(metrics.parent), encoding="utf-8")
        print(metrics.parent / "loss.svg")


if __name__ == "__main__":
    main()
