"""Programs to run: what of a completion is code, and what decides whether it is right."""

from collections.abc import Iterable, Sequence

from circius.base.errors import InvalidInputError

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where HumanEval's completion ends: with the next thing at the outermost level (Codex, section 2.2)."""

MBPP_STOPS = ("[DONE]",)
"""Where MBPP's completion ends, by the form of its prompt."""


def cut(text: str, stops: Iterable[str]) -> str:
    r"""The text before the first place where any of the stops begins.

    >>> cut("    return 1\n\ndef other():", HUMANEVAL_STOPS)
    '    return 1\n'
    """
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else text


def humaneval_program(prompt: str, completion: str, test: str, entry_point: str) -> str:
    """The whole program: the prompt, the completion cut at its stops, the item's tests, and the call that runs them.

    Raises:
        InvalidInputError: the entry point is no name in Python.
    """
    if not entry_point.isidentifier():
        raise InvalidInputError(f"entry_point must be the name of a function, got {entry_point!r}")
    return f"{prompt}{cut(completion, HUMANEVAL_STOPS)}\n\n{test}\n\ncheck({entry_point})\n"


def mbpp_program(completion: str, tests: Sequence[str], set_up: Sequence[str] = ()) -> str:
    """The whole program: the completion cut at its stop, what the tests import or set up, and the tests, one a line.

    The set-up comes second, because in one task it uses what the completion defines.

    Raises:
        InvalidInputError: there are no tests, so that anything would pass.
    """
    if not tests:
        raise InvalidInputError("a program without tests proves nothing: give at least one assert")
    return "\n".join([cut(completion, MBPP_STOPS), *set_up, *tests, ""])
