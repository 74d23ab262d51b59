"""Which known checkpoint a model is: first by its shape, then by what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

from circius.engine.llm import LLM
from circius.evals.verify.compare import compare
from circius.evals.verify.facts import Known
from circius.evals.verify.result import Result


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """known: the checkpoint, or None. told: what the facts that tell came to, by checkpoint. words: for people."""

    known: Known | None
    told: Sequence[tuple[str, Result]]
    words: str


def recognise(llm: LLM, checkpoints: Sequence[Known]) -> Recognised:
    """The checkpoint of this shape whose telling facts all hold.

    Of one without any facts the shape is all that is known, and then it is taken if no other of its shape has some.
    """
    alike = [own for own in checkpoints if own.has_shape_of(llm.config)]
    if not alike:
        return Recognised(known=None, told=[], words="not known: no known checkpoint has this shape")
    told: list[tuple[str, Result]] = []
    for own in alike:
        results = [compare(llm, fact, lambda _: None) for fact in own.facts if fact.tells]
        told += [(own.name, result) for result in results]
        if results and all(result.status == "pass" for result in results):
            return Recognised(known=own, told=told, words=f"{own.name}, by its shape and by what it says")
    names = " and ".join(own.name for own in alike)
    if not told:
        return Recognised(known=None, told=[], words=f"the shape of {names}; nothing is known of what that says")
    return Recognised(
        known=None, told=told, words=f"not known: the shape of {names}, but it does not say what they say"
    )
