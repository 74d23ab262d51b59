"""What holds for every model, whatever its weights: the same tokens have the same log-probabilities however they are
computed. The differences that rounding may make are in `ALLOWED`; a mistake is larger by far.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from circius.engine.devices import is_exact_in_batches
from circius.engine.llm import LLM
from circius.engine.logprobs import token_logprobs
from circius.engine.outputs import check_finished
from circius.engine.params import SamplingParams
from circius.evals.verify.result import Result
from circius.model import RollingCache, Transformer

N_TOKENS = 96
CHUNKS = (1, 7, 32)
TEXT = (
    "The mistral is a cold wind that blows from the north down the valley of the Rhône to the sea. It clears the sky "
    "within hours, bends the cypresses, and may last a day or a week; old houses turn their backs to it. Shepherds "
    "knew it by the mountains: when they stood blue and near, it was on its way. 1, 2, 3, 10, 200: so many panes."
)

ALLOWED: Mapping[str, float] = MappingProxyType({"float32": 2e-3, "float16": 0.05, "bfloat16": 0.3, "int8": 0.5})
"""By the coarser of the number formats of hidden states and cache: the largest difference of two log-probabilities in
nats that rounding explains, for models of some tens of layers. Where no bit may differ, none is allowed."""


@dataclass(frozen=True)
class Ground:
    """The model, the tokens that the laws are tried with, and what rounding may do."""

    llm: LLM
    tokens: Tensor
    allowed: float
    allowed_exact: float
    """Between two ways through the same cache."""

    @property
    def model(self) -> Transformer:
        return self.llm.model


def ground_of(llm: LLM) -> Ground:
    """The tokens of a text where there is a tokenizer, else drawn ones; as many as the context allows."""
    n = min(N_TOKENS, llm.context)
    if llm.tokenizer is not None:
        text_ids = llm.tokenizer.encode(TEXT, bos=llm.tokenizer.adds_bos)
        ids = (text_ids * (n // len(text_ids) + 1))[:n]
    else:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(llm.config.vocab_size, (n,), generator=generator).tolist()
    coarsest = max(
        ALLOWED.get(str(dtype).removeprefix("torch."), 0.5) for dtype in (llm.model.dtype, llm.model.cache_dtype)
    )
    exact = 0.0 if is_exact_in_batches(llm.model) else coarsest
    return Ground(llm, torch.tensor(ids, device=llm.model.device), coarsest, exact)


def laws() -> Iterator[tuple[str, Callable[[Ground], Result]]]:
    """Each with its name."""
    yield "weights are finite", finite_weights
    yield "logits are finite", finite_logits
    yield "chunks change nothing", chunks_change_nothing
    yield "cache as without", cache_as_without
    yield "packed as apart", packed_as_apart
    yield "twice the same", twice_the_same
    yield "generated as scored", generated_as_scored


def finite_weights(ground: Ground) -> Result:
    """No weight is infinite or not a number."""
    tensors = {name: own for name, own in ground.model.state_dict().items() if own.is_floating_point()}
    bad = [name for name, own in tensors.items() if not _all_finite(own)]
    detail = f"{len(tensors)} tensors of floats" + (f"; the first that is not: {bad[0]}" if bad else "")
    return Result.of("weights are finite", not bad, detail)


@torch.inference_mode()
def finite_logits(ground: Ground) -> Result:
    """No logit is infinite or not a number."""
    logits = ground.model(ground.tokens, [len(ground.tokens)])
    is_fine = bool(logits.isfinite().all())
    largest = float(logits.abs().nan_to_num(posinf=float("inf")).max())
    return Result.of("logits are finite", is_fine, f"of {len(ground.tokens)} tokens; the largest {largest:.4g}")


@torch.inference_mode()
def chunks_change_nothing(ground: Ground) -> Result:
    """Through the cache in chunks of several lengths, against all at once through the cache."""
    whole = _cached(ground, len(ground.tokens))
    worst = max(_difference(whole, _cached(ground, chunk)) for chunk in CHUNKS)
    detail = f"chunks of {', '.join(map(str, CHUNKS))} against one of {len(ground.tokens)}"
    return Result.within("chunks change nothing", worst, ground.allowed_exact, detail)


@torch.inference_mode()
def cache_as_without(ground: Ground) -> Result:
    """Token by token through the rolling cache, against one pass without any."""
    fresh = _logprobs(ground.model(ground.tokens, [len(ground.tokens)]), ground.tokens)
    detail = f"token by token against one pass, cache in {str(ground.model.cache_dtype).removeprefix('torch.')}"
    return Result.within("cache as without", _difference(fresh, _cached(ground, 1)), ground.allowed, detail)


@torch.inference_mode()
def packed_as_apart(ground: Ground) -> Result:
    """Three sequences on one axis, against each by itself: none sees its neighbours."""
    n = len(ground.tokens)
    if n < 6:
        return Result.skipped("packed as apart", f"the context of {n} tokens is too short for three sequences")
    lengths = [n // 6, n // 3, n - n // 6 - n // 3]
    together = ground.model(ground.tokens, lengths)
    worst, begin = 0.0, 0
    for length in lengths:
        part, own = ground.tokens[begin : begin + length], together[begin : begin + length]
        if length > 1:
            worst = max(worst, _difference(_logprobs(ground.model(part, [length]), part), _logprobs(own, part)))
        begin += length
    return Result.within("packed as apart", worst, ground.allowed, f"lengths {', '.join(map(str, lengths))}")


@torch.inference_mode()
def twice_the_same(ground: Ground) -> Result:
    """The same pass gives the same bits."""
    one, other = (ground.model(ground.tokens, [len(ground.tokens)]) for _ in range(2))
    return Result.within("twice the same", float((one - other).abs().max()), 0.0, "the largest difference of logits")


def generated_as_scored(ground: Ground) -> Result:
    """What is generated greedily has, when it is read again in one pass, the log-probabilities that were told.

    And every token of it is the likeliest, or nearly so.
    """
    n_prompt = max(1, len(ground.tokens) // 3)
    n_new = min(16, ground.llm.context - n_prompt)
    prompt = ground.tokens[:n_prompt].tolist()
    params = SamplingParams.greedy(max_tokens=n_new, logprobs=0, ignore_eos=True)
    [answer] = check_finished(ground.llm.generate([prompt], params))[0].outputs
    pairs = zip(answer.logprobs or [], answer.token_ids, strict=True)
    told = torch.tensor([entry[token].logprob for entry, token in pairs])
    whole = torch.tensor([*prompt, *answer.token_ids], device=ground.model.device)
    with torch.inference_mode():
        logits = ground.model(whole, [len(whole)])[n_prompt - 1 : -1]
    read = token_logprobs(logits, whole[n_prompt:]).cpu()
    best = logits.float().log_softmax(dim=-1).max(dim=-1).values.cpu()
    worst = max(_difference(told, read), float((best - read).max()))
    return Result.within("generated as scored", worst, ground.allowed, f"{n_new} tokens after {n_prompt}")


def _cached(ground: Ground, chunk: int) -> Tensor:
    """The log-probabilities of all tokens but the first, through the rolling cache, a chunk at a time."""
    model, tokens = ground.model, ground.tokens
    cache = RollingCache(model.config, [len(tokens)], dtype=model.cache_dtype, device=model.device)
    logits = [model(part, [len(part)], cache=cache) for part in pieces(tokens, chunk)]
    return _logprobs(torch.cat(logits), tokens)


def pieces(tensor: Tensor, length: int) -> Iterator[Tensor]:
    """The tensor along its first axis, so many at a time."""
    yield from (tensor[begin : begin + length] for begin in range(0, len(tensor), length))


def _logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    return token_logprobs(logits[:-1], tokens[1:]).cpu()


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest; what is not a number differs from everything."""
    found = (one.double() - other.double()).abs().max()
    return float("inf") if bool(found.isnan()) else float(found)


def _all_finite(tensor: Tensor) -> bool:
    """Row by row of large ones, so that no copy of a whole matrix is made."""
    rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim > 1 else tensor.reshape(1, -1)
    return all(bool(part.isfinite().all()) for part in pieces(rows, 4096))
