"""All checks of a checkpoint, one after the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from circius.base.errors import CirciusError
from circius.engine.llm import LLM
from circius.evals.verify.compare import Scored, compare
from circius.evals.verify.facts import Known
from circius.evals.verify.laws import Ground, ground_of, laws
from circius.evals.verify.recognise import Recognised, recognise
from circius.evals.verify.result import Result
from circius.evals.verify.text_law import text_laws
from circius.evals.verify.window_law import window_laws


@dataclass(frozen=True, kw_only=True)
class Verified:
    """recognised: which checkpoint it is. results: in the order in which they were found."""

    recognised: Recognised
    results: Sequence[Result]

    @property
    def n_failed(self) -> int:
        return sum(result.status == "fail" for result in self.results)


def verify(
    llm: LLM,
    checkpoints: Sequence[Known],
    *,
    perplexity: Scored = lambda context: None,
    on_result: Callable[[Result], object] = lambda result: None,
) -> Verified:
    """Recognises the checkpoint, holds what it says against what is known of it, and tries the laws.

    Of quantised weights the facts are compared as well, but they are of 16-bit weights: what differs is skipped, with
    the numbers, and does not fail.
    """
    results: list[Result] = []

    def keep(found: Iterator[Result]) -> None:
        for result in found:
            results.append(result)
            on_result(result)

    recognised = recognise(llm, checkpoints)
    known = recognised.known
    facts = list(known.facts) if known is not None else []
    told = (
        []
        if known is not None
        else [replace(result, name=f"{name}: {result.name}") for name, result in recognised.told]
    )
    keep(_softened(result, llm, is_known=False) for result in told)
    keep(_softened(compare(llm, fact, perplexity), llm, is_known=True) for fact in facts)
    ground = ground_of(llm)
    keep(_tried(name, law, ground) for name, law in laws())
    keep(window_laws(ground))
    keep(text_laws(llm))
    return Verified(recognised=recognised, results=results)


def _tried(name: str, law: Callable[[Ground], Result], ground: Ground) -> Result:
    """The law's result; an error on the way is a failure of that law, not the end of the others."""
    try:
        return law(ground)
    except CirciusError as error:
        return Result.of(name, False, f"{error}")


def _softened(result: Result, llm: LLM, *, is_known: bool) -> Result:
    """What says little of this model is no failure of it: a fact of another checkpoint, or of finer weights."""
    if result.status != "fail":
        return result
    if not is_known:
        return replace(result, status="skipped", detail=f"it is another one: {result.detail}")
    if llm.model.is_packed:
        return replace(result, status="skipped", detail=f"the weights are quantised: {result.detail}")
    return result
