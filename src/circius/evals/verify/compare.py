"""A model against a fact."""

from collections.abc import Callable, Sequence
from functools import singledispatch

import torch

from circius.engine.llm import LLM
from circius.engine.outputs import Logprobs, check_finished
from circius.engine.params import SamplingParams
from circius.evals.verify.facts import Fact, Greedy, LogitMeans, Logits, Perplexity, Tail, Text
from circius.evals.verify.result import Result

Scored = Callable[[int], float | None]
"""The perplexity of the user's text with a context of so many tokens; None if there is no such text, or only a part of
it is to be scored."""


def compare(llm: LLM, fact: Fact, perplexity: Scored) -> Result:
    """Whether the model says what the fact says."""
    if llm.tokenizer is None and isinstance(fact, Text) and not fact.prompt_ids:
        return Result.skipped(fact.name, "is about a text, and the checkpoint has no tokenizer")
    if isinstance(fact, Perplexity):
        found = perplexity(fact.context)
        if found is None:
            return Result.skipped(fact.name, "needs the whole text: give wiki.test.raw with --wikitext")
        detail = f"{found:.4f}, known {fact.value:.4f} ({fact.source})"
        return Result.within(fact.name, abs(found - fact.value), fact.tolerance, detail)
    longest = _longest(fact)
    if longest > llm.context:
        return Result.skipped(fact.name, f"takes {longest} tokens, and the context is {llm.context}")
    if odd := [token for token in fact.tokens() if not 0 <= token < llm.config.vocab_size]:
        return Result.of(fact.name, False, f"names token {odd[0]}, and the vocabulary has {llm.config.vocab_size}")
    return _compare(fact, llm)


def _longest(fact: Fact) -> int:
    """About how many tokens the fact takes, prompt and answer."""
    if isinstance(fact, Tail):
        return len(fact.begins) + fact.times * len(fact.repeats) + fact.max_tokens
    if isinstance(fact, Text):
        return len(fact.prompt_ids or ()) + fact.max_tokens
    return len(fact.tokens())


@singledispatch
def _compare(fact: Fact, llm: LLM) -> Result:
    raise AssertionError(f"no comparison for {type(fact).__name__}")


@_compare.register
@torch.inference_mode()
def _(fact: LogitMeans, llm: LLM) -> Result:
    found = _logits(llm, fact.ids).mean(dim=-1).tolist()
    worst = max(abs(own - known) for own, known in zip(found, fact.means, strict=True))
    return Result.within(fact.name, worst, fact.tolerance, f"the largest difference of {len(found)} means")


@_compare.register
@torch.inference_mode()
def _(fact: Logits, llm: LLM) -> Result:
    own = _logits(llm, fact.ids)[fact.position]
    worst = min(float((own[: len(known)] - torch.tensor(known)).abs().max()) for known in fact.any_of)
    return Result.within(fact.name, worst, fact.tolerance, f"the largest difference of {len(fact.any_of[0])} logits")


@_compare.register
def _(fact: Greedy, llm: LLM) -> Result:
    if fact.prompt is not None and llm.tokenizer is not None:
        own_ids = llm.tokenizer.encode(fact.prompt, bos=llm.tokenizer.adds_bos)
        if own_ids != list(fact.prompt_ids):
            return Result.of(
                fact.name, False, f"the tokenizer gives {own_ids[:12]}, known {list(fact.prompt_ids)[:12]}"
            )
    params = SamplingParams.greedy(
        max_tokens=len(fact.ids), logprobs=0, prompt_logprobs=None if fact.prompt_logprobs is None else 0
    )
    [result] = check_finished(llm.generate([list(fact.prompt_ids)], params))
    [answer] = result.outputs
    n_same = _n_common(answer.token_ids, fact.ids)
    if n_same < len(fact.ids):
        return Result.of(
            fact.name, False, f"{n_same} of {len(fact.ids)} tokens, then {answer.token_ids[n_same : n_same + 1]}"
        )
    detail = f"all {len(fact.ids)} tokens"
    differences = _differences(answer.logprobs, fact.ids, fact.logprobs)
    differences += _differences((result.prompt_logprobs or [])[1:], fact.prompt_ids[1:], fact.prompt_logprobs)
    if not differences:
        return Result.of(fact.name, True, detail)
    return Result.within(fact.name, max(differences), fact.tolerance, f"{detail}; log-probabilities")


@_compare.register
def _(fact: Text, llm: LLM) -> Result:
    prompt: str | Sequence[int] = list(fact.prompt_ids) if fact.prompt_ids is not None else fact.prompt
    [result] = check_finished(llm.generate([prompt], SamplingParams.greedy(max_tokens=fact.max_tokens)))
    text = fact.prompt + result.outputs[0].text
    if fact.prompt_ids is not None and llm.tokenizer is not None:
        text = llm.tokenizer.decode([*fact.prompt_ids, *result.outputs[0].token_ids])
    n_same = _n_common(text, fact.whole_text)
    is_same = text == fact.whole_text
    detail = (
        f"all {len(text)} characters"
        if is_same
        else f"the same up to character {n_same}, then {text[n_same : n_same + 20]!r}"
    )
    return Result.of(fact.name, is_same, detail)


@_compare.register
def _(fact: Tail, llm: LLM) -> Result:
    prompt = [*fact.begins, *list(fact.repeats) * fact.times]
    [result] = check_finished(llm.generate([prompt], SamplingParams.greedy(max_tokens=fact.max_tokens)))
    found = result.outputs[0].token_ids
    known = list(fact.ids)
    return Result.of(fact.name, found[-len(known) :] == known, f"after {len(prompt)} tokens {found}, known ...{known}")


def _logits(llm: LLM, ids: Sequence[int]) -> torch.Tensor:
    tokens = torch.tensor(list(ids), device=llm.model.device)
    logits: torch.Tensor = llm.model(tokens, [len(tokens)])
    return logits.float().cpu()


def _differences(
    found: Sequence[Logprobs | None] | None, ids: Sequence[int], known: Sequence[float] | None
) -> list[float]:
    if known is None:
        return []
    assert found is not None
    return [
        abs(entry[token].logprob - own)
        for entry, token, own in zip(found, ids, known, strict=True)
        if entry is not None
    ]


def _n_common(one: Sequence[object], other: Sequence[object]) -> int:
    for place, (own, its) in enumerate(zip(one, other, strict=False)):
        if own != its:
            return place
    return min(len(one), len(other))
