"""What the reference of a preference run thinks of its pairs: worked out once, kept on disk, no second model.

The file's name is a digest of the weights and of the data, so that it can never be taken for another run's.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from circius.base.errors import CheckpointError
from circius.model import Transformer
from circius.train.dpo import Pair, pair_batches, pair_log_probs
from circius.train.lora import enabled
from circius.train.world import World
from circius.weights.target import new_file

_KEY = "log_probs"
_NUMBERS_AT_ONCE = 2**24
OnPair = Callable[[int, int], None]
"""Called with the pairs done so far and in all."""


def reference_log_probs(
    model: Transformer,
    pairs: Sequence[Pair],
    *,
    batch_tokens: int,
    world: World | None = None,
    folder: Path | None = None,
    on_progress: OnPair | None = None,
) -> Tensor:
    """(pairs, 2) float32 on the CPU: the log-probabilities of the chosen and the rejected answers before training.

    If `model` has trainable pairs, they are left out.

    world: of processes that all call this with the same whole model, and share out the work; None for one alone.
    folder: where they are kept from run to run; None keeps nothing.

    Raises:
        InvalidInputError: an answer has nothing to learn.
        CheckpointError: the file there is damaged. StorageError: it cannot be written.
    """
    world = world or World(device=torch.device("cpu"))
    file = None
    if folder is not None and world.is_first:
        file = folder / f"reference-{fingerprint(model, pairs)}.safetensors"
    kept = world.from_first(world.together(lambda: None if file is None else _kept(file, len(pairs))))
    if kept is not None:
        return kept
    shares = world.gathered(_share(model, pairs, batch_tokens, world, on_progress))
    n_batches = sum(map(len, shares))
    done = [shares[number % world.size][number // world.size] for number in range(n_batches)]
    found = torch.cat(done) if done else torch.empty(0, 2)
    world.together(lambda: None if file is None else _keep(file, found))
    return found


def _share(
    model: Transformer, pairs: Sequence[Pair], batch_tokens: int, world: World, on_progress: OnPair | None
) -> list[Tensor]:
    """This process's part: of the batches that one alone would compute, every so many."""
    own: list[Tensor] = []
    n_passed = 0
    with torch.no_grad(), enabled(model, False):
        for number, batch in enumerate(pair_batches(pairs, batch_tokens)):
            n_passed += len(batch.lengths) // 2
            if number % world.size == world.rank:
                own.append(pair_log_probs(model, batch).cpu())
            if on_progress is not None:
                on_progress(n_passed, len(pairs))
    return own


def fingerprint(model: Transformer, pairs: Sequence[Pair]) -> str:
    """A digest of the frozen model (its shape and every number in it) and of the ids and masks of the pairs."""
    digest = blake2b(repr((model.config, str(model.dtype))).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        digest.update(f"{name.replace('.base_layer', '')} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for part in torch.split(whole.detach().reshape(-1), _NUMBERS_AT_ONCE):
            digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for pair in pairs:
        for example in pair:
            digest.update(len(example).to_bytes(8, "little"))
            digest.update(example.ids.tobytes() + example.learnt.tobytes())
    return digest.hexdigest()


def _keep(file: Path, found: Tensor) -> None:
    with new_file(file, n_bytes=found.nbytes, overwrite=True) as path:
        save_file({_KEY: found}, path)


def _kept(file: Path, n_pairs: int) -> Tensor | None:
    """What was kept in a file; None if there is none."""
    if not file.is_file():
        return None
    try:
        found = load_file(file).get(_KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; delete it, and it is made again") from error
    if found is None or found.shape != (n_pairs, 2):
        raise CheckpointError(f"{file} does not hold log-probabilities of {n_pairs} pairs: delete it to make it again")
    return found
