"""No key leaks past the window: the token that has just left it changes nothing, the one that has not does.

Through several layers a token reaches further than one window, which is what the paper is about; so the probe takes one
layer at a time, with the embeddings before it and the output behind it, and is sharp: W - 1 tokens after a changed one
the logits must differ, W tokens after it they must be the same to the last bit.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from circius.base.config import Window
from circius.evals.verify.laws import Ground, pieces
from circius.evals.verify.result import Result
from circius.model import RollingCache, Transformer
from circius.model.layers import Linear
from circius.weights.load import Uninitialised

NO_WINDOW_TOKENS = 48
_BEHIND = 3
"""Tokens behind the window that are looked at."""
_CHUNK = 500


def window_laws(ground: Ground) -> Iterator[Result]:
    """One result for each different window of the model's layers, tried at the first layer that has it."""
    windows = ground.model.config.windows
    for window in dict.fromkeys(windows):
        yield _window_law(ground, windows.index(window), window)


@torch.inference_mode()
def _window_law(ground: Ground, layer: int, window: Window) -> Result:
    name = f"window of {window}" if window is not None else "no window"
    probe = one_layer(ground.model, layer)
    reach = NO_WINDOW_TOKENS if window is None else window
    n = reach + (0 if window is None else _BEHIND)
    tokens = ground.tokens.repeat(n // len(ground.tokens) + 1)[:n]
    changed = tokens.clone()
    changed[0] = (changed[0] + 1) % probe.config.vocab_size
    worst_inside, worst_behind = float("inf"), 0.0
    for through_cache in (False, True):
        moved = (_logits(probe, tokens, reach, through_cache) - _logits(probe, changed, reach, through_cache)).abs()
        worst_inside = min(worst_inside, float(moved[0].max()))
        worst_behind = max(worst_behind, float(moved[1:].max()) if len(moved) > 1 else 0.0)
    where = f"layer {layer}, with and without a cache: {reach - 1} tokens on it moves logits by {worst_inside:.2g}"
    if window is None:
        return Result.of(name, worst_inside > 0, where)
    detail = f"{where}, {window} to {n - 1} tokens on by {worst_behind:.2g}"
    return Result.of(name, worst_inside > 0 and worst_behind == 0, detail)


def one_layer(model: Transformer, layer: int) -> Transformer:
    """The model with one of its layers alone, sharing its weights; without an adapter."""
    config = replace(model.config, n_layers=1, window_size=model.config.windows[layer])
    with torch.device("meta"), Uninitialised():
        probe = Transformer(config)
    probe.model.embed_tokens = model.model.embed_tokens
    probe.model.layers = nn.ModuleList([model.model.layers[layer]])
    probe.model.norm = model.model.norm
    if not config.tied_output:
        probe.lm_head = model.lm_head
    probe.cache_dtype = model.cache_dtype
    if any(isinstance(each, Linear) and each.fixed_order for each in model.modules()):
        probe.fix_order()
    return probe


def _logits(probe: Transformer, tokens: Tensor, reach: int, through_cache: bool) -> Tensor:
    """Those of the last token that sees the first one, and of all behind it."""
    if not through_cache:
        fresh: Tensor = probe(tokens, [len(tokens)], logits=list(range(reach - 1, len(tokens))))
        return fresh
    cache = RollingCache(probe.config, [len(tokens)], dtype=probe.cache_dtype, device=probe.device)
    found = []
    begin = 0
    for part in pieces(tokens, min(_CHUNK, max(1, reach // 2))):
        wanted = [place - begin for place in range(max(begin, reach - 1), begin + len(part))]
        logits = probe(part, [len(part)], cache=cache, logits=wanted or "none")
        found.append(logits)
        begin += len(part)
    return torch.cat(found)
