r"""Final answers of maths problems in one form, so that spelling alone makes no difference.

In the manner of Minerva's normalisation (arXiv 2206.14858, appendix D.1), written anew: what an answer is called
("x ="), units, dollars, degrees, spacing and styles go; shorthand is written out. Four of its side effects are left
behind. Words are removed only as whole words (its removal of "ft" also breaks \left and \infty), commas only where they
part thousands (it makes "1,2" twelve), an overline stays (it makes 0.333... 0.3), and so does the left side of an
equation that is itself the answer (it makes "x^2 + y^2 = 4" four).
"""

import re

_UNITS = re.compile(
    "square|ways?|integers?|dollars?|mph|inch(es)?|ft|foot|feet|hours?|km|units?|sue|points?|minutes?|digits|cents?"
    "|degrees?|cm|mm|gm|kg|pounds?|meters?|meals|edges|students|childrentickets|multiples|miles?|yards?|seconds?|days?"
    "|weeks?|months?|years?|percent|sq|cubic|per",
    re.IGNORECASE,
)
_STYLES = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathbb|mbox|operatorname)\s*\{")
_NOTHING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|limits|quad|qquad|[ldc]?dots)(?![a-zA-Z])"
    r"|(?<!\\)\\[,!;: ]|\\\\(?=\s*$)|~|\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°|\\?%|\\\$|\"|…"
)
_UNIT_WORDS = re.compile(r"(?<![\\a-zA-Z])([a-zA-Z]{2,})(\s*\^\s*(?:\{\s*[23]\s*\}|[23]))?(?![a-zA-Z{])")
_UNIT_METRES = re.compile(r"(?<=[0-9}])\s*\\(?:text|mathrm|mbox)\s*\{\s*(?:m|g|s|h|L)\s*\}(\s*\^\s*(?:\{[23]\}|[23]))?")
_ARTICLES = re.compile(r"(?<![\\a-zA-Z])(?:a|an|the)\s+(?=[a-zA-Z]{3})", re.IGNORECASE)
_AND = re.compile(r",?\s*(?:\\(?:text|mbox)\s*\{\s*(?:and|or)\s*\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z]))\s*")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9a-zA-Z]))\s*(?:\{([^{}]*)\}|([0-9a-zA-Z]))")
_SHORT_ROOT = re.compile(r"\\sqrt(\[[^\]]*\])?\s*([0-9]|\\?[a-zA-Z]+(?![a-zA-Z]))")
# A letter or words, perhaps with an index or arguments; or arithmetic without any letter but those of commands.
_NAME = re.compile(
    r"(?:[a-zA-Z' ]|\\[a-zA-Z]+)*(?:_\{?\w+\}?)?'*\s*(?:\([a-zA-Z, ]*\))?|\([a-zA-Z](?:\s*,\s*[a-zA-Z])*\)"
    r"|(?:[^a-zA-Z\\]|\\[a-zA-Z]+)*"
)
_MEMBERSHIP = re.compile(r"^[a-zA-Z]\s*\\in(?![a-zA-Z])")


def normalise(answer: str) -> str:
    r"""A final answer in one form, without spaces; empty where nothing is left.

    >>> normalise(r"The area is $x = 1{,}024$ square inches."), normalise(r"\dfrac12\text{ cm}^2")
    ('1024', '\\frac{1}{2}')
    """
    text = answer.strip().rstrip(".").strip()
    text = _inside_dollars(text)
    for long, short in (("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac"), ("−", "-"), ("{,}", ",")):
        text = text.replace(long, short)
    text = _NOTHING.sub(" ", text)
    text = _AND.sub(",", text)
    text = _without_styles(_UNIT_METRES.sub("", text))
    text = _ARTICLES.sub("", text)
    text = _UNIT_WORDS.sub(lambda word: "" if _UNITS.fullmatch(word[1]) else word[0], text)
    text = ",".join(_MEMBERSHIP.sub("", _unnamed(part)) for part in split_outside(text, ","))
    text = re.sub(r"\\(leq|geq|neq)(?![a-zA-Z])", lambda relation: relation[0][:-1], text)
    text = _close_up(text).rstrip(".").strip(",")
    if not any(bracket in text for bracket in ("(", "[", "\\{")):  # (12,102) is no number
        text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    text = _SHORT_FRACTION.sub(_written_out, text)
    text = _SHORT_ROOT.sub(lambda root: f"\\sqrt{root[1] or ''}{{{root[2]}}}", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return re.sub(r"(?<![\d.])(\d+)\.0+(?!\d)", r"\1", text)


def _inside_dollars(text: str) -> str:
    """What is between the dollar signs where there is one pair of them; else the text without any."""
    text = text.replace("\\$", "").replace("\\(", "$").replace("\\)", "$").replace("\\[", "$").replace("\\]", "$")
    spans = re.findall(r"\$+([^$]+)\$+", text)
    return spans[0] if len(spans) == 1 else text.replace("$", "")


def split_outside(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand in no brackets; a bracket that is escaped counts as one.

    >>> split_outside("(1,2),[3,4)", ",")
    ['(1,2)', '[3,4)']
    """
    parts, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if depth == 0 and text.startswith(separator, place):
            parts.append(text[start:place])
            place += len(separator)
            start = place
            continue
        depth = max(0, depth + (text[place] in "([{") - (text[place] in ")]}"))
        place += 1
    return [*parts, text[start:]]


def _unnamed(text: str) -> str:
    """An answer without what it is called: "x = 5", "f(x) = 5", "the area = 5" and "2 + 3 = 5" are 5.

    An equation in which something is done to a variable, such as "x + y = 5", is itself the answer.
    """
    *names, value = split_outside(text, "=")
    if not names or not value.strip() or any(name.rstrip().endswith(("<", ">", "!")) for name in names):
        return text.strip()
    return value.strip() if all(_NAME.fullmatch(name.strip()) for name in names) else text.strip()


def _close_up(text: str) -> str:
    r"""The text without spaces, but for one between a command and a letter: "\pi r" is not "\pir"."""
    return re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|\s+", lambda gap: f"{gap[1]} " if gap[1] else "", text)


def _without_styles(text: str) -> str:
    r"""The text with \text{x} and its like replaced by x, from the outside in."""
    while (style := _STYLES.search(text)) is not None:
        depth, place = 1, style.end()
        while place < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        inside = text[style.end() : place - 1] if depth == 0 else text[style.end() :]
        text = f"{text[: style.start()]} {inside} {text[place:]}"
    return text


def _written_out(fraction: re.Match[str]) -> str:
    above = fraction[1] if fraction[1] is not None else fraction[2]
    below = fraction[3] if fraction[3] is not None else fraction[4]
    return f"\\frac{{{above}}}{{{below}}}"
