"""Draws docs/window.svg from the one definition of the window, so that the figure cannot drift from the code.

python docs/make_figures.py
"""

from pathlib import Path

from circius.model.window import visible

WORDS = ["the", "wind", "that", "the", "Romans", "called", "Circius"]
WINDOW = 3
CELL, GAP = 34, 4
INK, SEEN, SELF, FAINT = "#4b5563", "#7dd3fc", "#0284c7", "#e5e7eb"
SLOTS = ("#fde68a", "#fca5a5", "#bbf7d0")


def box(x: float, y: float, width: float, colour: str, extra: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{CELL}" rx="5" fill="{colour}"{extra}/>'


def label(x: float, y: float, text: str, anchor: str = "start", colour: str = INK, size: int = 13) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>'


def mask(left: float, top: float) -> list[str]:
    """One row a query, one column a key."""
    drawn = [label(left, top - 44, f"Who sees whom, W = {WINDOW}", size=15)]
    for query, word in enumerate(WORDS):
        y = top + query * (CELL + GAP)
        drawn.append(label(left - 8, y + CELL / 2 + 4, word, "end"))
        drawn.append(label(left + query * (CELL + GAP) + CELL / 2, top - 8, str(query), "middle"))
        for key in range(len(WORDS)):
            colour = SELF if key == query else SEEN if visible(query, key, WINDOW) else FAINT
            drawn.append(box(left + key * (CELL + GAP), y, CELL, colour))
    return drawn


def ring(left: float, top: float) -> list[str]:
    """The W slots of the rolling buffer after each token: position p stands in slot p mod W."""
    drawn = [label(left, top - 44, f"The rolling buffer: slot = position mod {WINDOW}", size=15)]
    held: dict[int, int] = {}
    for slot in range(WINDOW):
        drawn.append(label(left + slot * (96 + GAP) + 48, top - 8, f"slot {slot}", "middle"))
    for position in range(len(WORDS)):
        held[position % WINDOW] = position
        y = top + position * (CELL + GAP)
        for slot in range(WINDOW):
            x = left + slot * (96 + GAP)
            fresh = position % WINDOW == slot
            colour = SLOTS[slot] if slot in held else FAINT
            edge = f' stroke="{INK}" stroke-width="1.5"' if fresh else ""
            drawn.append(box(x, y, 96, colour, edge))
            if slot in held:
                text = f"{held[slot]} {WORDS[held[slot]]}"
                drawn.append(label(x + 48, y + CELL / 2 + 4, text, "middle", "#1f2937", 12))
    return drawn


def figure() -> str:
    parts = [*mask(90, 60), *ring(430, 60)]
    height = 60 + len(WORDS) * (CELL + GAP) + 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="740" height="{height}" viewBox="0 0 740 {height}" '
            'font-family="Helvetica, Arial, sans-serif">',
            f'<rect width="740" height="{height}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("window.svg").write_text(figure())
