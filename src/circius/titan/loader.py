"""Our token shards as torchtitan's data: the stream of `circius.train`, in rows of one length.

A row is a micro-batch of `circius pretrain` with `batch_tokens` of the sequence length: whole examples next to each
other. What is left of it is filled up with one more document, of which nothing is learnt: torchtitan wants rows of one
length. All processes walk the same stream and take their own rows of it, so its state does not know how many they are.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from circius.base.errors import CheckpointError, ConfigError
from circius.text.load import load_tokenizer
from circius.text.tokenizer import check_vocab
from circius.train.batch import IGNORED, Batch
from circius.train.stream import Stream
from circius.train.text_source import TextSource

_FILLER = 0
_STATE = "stream"


class CirciusTokenizer(BaseTokenizer):  # type: ignore[misc]
    """The tokenizer in a folder, of any kind that circius reads, as torchtitan's."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):  # type: ignore[misc]
        pass

    def __init__(self, config: Config, *, tokenizer_path: str) -> None:
        super().__init__()
        self.own = load_tokenizer(Path(tokenizer_path))
        self.eos_id = min(self.own.eos_ids, default=None)

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        ids = self.own.encode(text, bos=add_bos)
        return [*ids, self.eos_id] if add_eos and self.eos_id is not None else ids

    def decode(self, ids: list[int]) -> str:
        return self.own.decode(ids)

    def get_vocab_size(self) -> int:
        return self.own.vocab_size


class ShardsLoader(BaseDataLoader):  # type: ignore[misc]
    """A folder of `circius data prepare`, walked without end; every epoch in another order.

    Raises:
        ConfigError: no folder, or more in the configuration than that.
        InvalidInputError, TokenizerError: shards, tokenizer and model that do not belong together.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):  # type: ignore[misc]
        seed: int = 0
        """Of the order of the examples"""

        vocab_size: int | None = None
        """Ids that the model knows: a tokenizer with more is refused"""

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        tokenizer: Any,
        seq_len: int,
        local_batch_size: int,
        snapshot_every_n_steps: int | None = None,  # of loaders that read ahead; ours is always where it says it is
    ) -> None:
        if config.dataset or not config.dataset_path:
            raise ConfigError(
                f"--dataloader.dataset_path must name a folder of `circius data prepare`, and --dataloader.dataset "
                f"stay empty: got {config.dataset_path!r} and {config.dataset!r}"
            )
        if not isinstance(tokenizer, CirciusTokenizer):
            raise ConfigError(f"shards need the tokenizer CirciusTokenizer, got {type(tokenizer).__name__}")
        if config.vocab_size is not None:
            check_vocab(tokenizer.own, config.vocab_size)
        source = TextSource(Path(config.dataset_path), tokenizer.own, seq_len=seq_len)
        self._stream = Stream([source], batch_tokens=seq_len, seed=config.seed)
        self._n_rows = local_batch_size * dp_world_size
        self._own = range(local_batch_size * dp_rank, local_batch_size * (dp_rank + 1))

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Without end: ids and positions, and targets, all (local_batch_size, seq_len)."""
        while True:
            rows = [_row(batch, self._stream.batch_tokens) for batch in self._stream.next(self._n_rows, self._own)]
            ids, positions, targets = (torch.stack(column) for column in zip(*rows, strict=True))
            yield {"input": ids, "positions": positions}, targets

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, the same in all processes: one line, which a checkpoint keeps once."""
        return {_STATE: json.dumps(self._stream.state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on there, in any number of processes.

        Raises:
            CheckpointError: the state of another loader.
            InvalidInputError: the state of other data.
        """
        if not state_dict:
            return  # torchtitan's way to say that there is none
        if _STATE not in state_dict:
            raise CheckpointError(f"the state of another data loader, with {sorted(state_dict)}: begin a new run")
        self._stream.restore(json.loads(state_dict[_STATE]))


def _row(batch: Batch, n_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, positions that begin anew with every example, and targets of a batch, filled up."""
    n_left = n_tokens - len(batch.tokens)
    ids = torch.cat([batch.tokens, torch.full((n_left,), _FILLER)])
    positions = torch.cat([torch.arange(length) for length in (*batch.lengths, n_left)])
    return ids, positions, torch.cat([batch.targets, torch.full((n_left,), IGNORED)])
