"""Word F1 between an answer and its references, and the official way to average it for QuAC."""

from collections import Counter
from collections.abc import Sequence

from circius.base.errors import InvalidInputError
from circius.evals.scoring.answers import Form, squad_form

CANNOT_ANSWER = "CANNOTANSWER"
"""QuAC's reference where the passage does not tell."""

QUAC_MIN_HUMAN_F1 = 0.4
"""QuAC's scorer leaves out questions on which people agree less than this with each other."""

_DONT_KNOW = frozenset({"cannotanswer", "cannot answer", "not enough information", "do not know"})


def word_f1(answer: str, reference: str, form: Form = squad_form) -> float:
    """The harmonic mean of precision and recall of an answer's words, in [0, 1]; 0 where no word is common.

    >>> word_f1("the cat sat", "a black cat")
    0.5
    """
    given, wanted = form(answer).split(), form(reference).split()
    n_common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * n_common / (len(given) + len(wanted)) if n_common else 0.0


def best_f1(answer: str, references: Sequence[str], form: Form = squad_form) -> float:
    """The F1 with the nearest reference.

    Raises:
        InvalidInputError: there is no reference.
    """
    _check(references)
    return max(word_f1(answer, reference, form) for reference in references)


def quac_span(text: str) -> str:
    """What a model wrote, as QuAC's scorer takes it: one of four ways to say "not told" becomes CANNOTANSWER.

    The four are QuAC's own word and HELM's three sentences; anything else is taken as it stands.

    >>> quac_span("Not enough information.")
    'CANNOTANSWER'
    """
    span = text.strip()
    return CANNOT_ANSWER if squad_form(span) in _DONT_KNOW else span


def quac_references(references: Sequence[str]) -> tuple[str, ...]:
    """The references that count: CANNOTANSWER alone if at least half say so, else all the others.

    Raises:
        InvalidInputError: there is no reference.
    """
    _check(references)
    spans = tuple(reference for reference in references if reference != CANNOT_ANSWER)
    return spans if len(references) - len(spans) < len(spans) else (CANNOT_ANSWER,)


def quac_f1(span: str, references: Sequence[str]) -> float:
    """QuAC's F1: where there are several references, the mean over leaving each of them out once.

    So a model is compared with one reference fewer than there are, as each person was who gave one. CANNOTANSWER is
    right or wrong, with nothing between. `references` are `quac_references`' own; it is applied again, to no effect.
    """
    counted = quac_references(references)
    scores = [_quac_overlap(span, reference) for reference in counted]
    if len(scores) == 1:
        return scores[0]
    return sum(max(scores[:left_out] + scores[left_out + 1 :]) for left_out in range(len(scores))) / len(scores)


def human_f1(references: Sequence[str]) -> float:
    """How well people agree: the mean F1 of each counted reference with the nearest other; 1 where there is only one.

    A question below `QUAC_MIN_HUMAN_F1` does not count in QuAC's score.
    """
    counted = quac_references(references)
    if len(counted) == 1:
        return 1.0
    best = (
        max(word_f1(one, other) for place, other in enumerate(counted) if place != index)
        for index, one in enumerate(counted)
    )
    return sum(best) / len(counted)


def _quac_overlap(span: str, reference: str) -> float:
    if reference == CANNOT_ANSWER:
        return float(span == CANNOT_ANSWER)
    return word_f1(span, reference)


def _check(references: Sequence[str]) -> None:
    if not references:
        raise InvalidInputError("F1 needs at least one reference answer, got none")
