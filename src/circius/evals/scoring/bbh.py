"""BIG-Bench Hard: the answer in what a model wrote, with and without its reasoning, and whether it is the right one."""

import re

_LETTER = re.compile(r"\([A-Z]\)")
_GIVEN_LETTER = re.compile(r"\(?([A-Z])(?:\)|[.:]|$)")
_STATED = re.compile(r"\banswer is\b:?[ \t]*", re.IGNORECASE)


def extract_direct(text: str) -> str | None:
    r"""The answer where none but an answer was asked for: the first line that is not empty, without its final dot.

    >>> extract_direct(" (B)\n\nQ: What is ...")
    '(B)'
    """
    first = next((line for line in text.splitlines() if line.strip()), None)
    return None if first is None else _bare(first)


def extract_cot(text: str) -> str | None:
    r"""The answer behind reasoning: what follows the last "answer is" before the model asks itself another question.

    None where it never says so: the answer is then wrong, not guessed. The last one counts, because reasoning may name
    answers that it goes on to reject.

    >>> extract_cot("It seems the answer is 3. But no. So the answer is 4.\n\nQ: ... So the answer is 5.")
    '4'
    """
    reasoning = text.split("\nQ:")[0]
    stated = [found.end() for found in _STATED.finditer(reasoning)]
    return _bare(reasoning[stated[-1] :].split("\n")[0]) or None if stated else None


def is_right(given: str | None, target: str) -> bool:
    """Whether an extracted answer is the target: the same text, case and all, white space apart.

    Where the target is a letter in brackets, the letter counts, also without brackets or with the option's text
    behind it.

    >>> is_right("(A) three apples", "(A)"), is_right("A", "(A)"), is_right("Apples", "(A)"), is_right(") ]", ")]")
    (True, True, False, False)
    """
    if given is None:
        return False
    if _LETTER.fullmatch(target):
        letter = _GIVEN_LETTER.match(given)
        return letter is not None and f"({letter[1]})" == target
    return " ".join(given.split()) == " ".join(target.split())


def _bare(answer: str) -> str:
    return answer.strip().removesuffix(".").rstrip()
