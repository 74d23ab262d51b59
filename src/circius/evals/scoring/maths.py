r"""MATH: the final answer in a solution, from a sentence that the prompt taught or from the last \boxed{}."""

import re

from circius.base.errors import InvalidInputError
from circius.evals.scoring.minerva import normalise

_FINAL = re.compile(r"Final Answer:\s*The final answer is\s*(.*?)\.?\s*I hope it is correct", re.DOTALL)
_BOXES = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\(?:boxed|fbox)\s+(\S+)")


def final_answer(text: str) -> str | None:
    """X in "Final Answer: The final answer is X. I hope it is correct.", as it stands; None where it is not said.

    The first such sentence counts: what follows it is a problem of the model's own making.

    >>> final_answer("so x = 4.\\nFinal Answer: The final answer is $4$. I hope it is correct.")
    '$4$'
    """
    found = _FINAL.search(text)
    return found[1].strip() or None if found else None


def last_boxed(text: str) -> str | None:
    r"""What is inside the last \boxed{...} or \fbox{...}, with its own braces; None where there is none that closes.

    >>> last_boxed(r"so \boxed{1}, that is $\boxed{\frac{1}{2}}$")
    '\\frac{1}{2}'
    """
    for box in reversed(list(_BOXES.finditer(text))):
        if box[1] is not None:  # \boxed 7$, without braces
            return box[1].split("$")[0] or None
        inside = _braced(text, box.end())
        if inside is not None:
            return inside
    return None


def extract(text: str) -> str | None:
    """The final answer of what a model wrote, in Minerva's form: the sentence of the prompt, else the last box."""
    raw = final_answer(text)
    raw = last_boxed(text) if raw is None else raw
    return None if raw is None else normalise(raw) or None


def gold(solution: str) -> str:
    """The answer of MATH's own solution, in Minerva's form: its last box.

    Raises:
        InvalidInputError: the solution has no box.
    """
    boxed = last_boxed(solution)
    if boxed is None:
        raise InvalidInputError(f"a MATH solution holds its answer in \\boxed{{}}, got {solution[-120:]!r}")
    return normalise(boxed)


def _braced(text: str, start: int) -> str | None:
    """What is between the brace at `start` and the one that closes it; escaped braces count for nothing."""
    depth, place = 0, start
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place]
        place += 1
    return None
