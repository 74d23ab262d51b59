"""Our shards in torchtitan's loop: the rows that our own training sees, in any number of processes, after any stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

pytest.importorskip("torchtitan.trainer", reason="the plug-in for torchtitan is tested where torchtitan 0.3.0 is")

from circius.base.errors import CheckpointError, CirciusError
from circius.text import load_tokenizer
from circius.titan.loader import CirciusTokenizer, ShardsLoader
from circius.train.stream import Stream
from circius.train.text_source import TextSource
from tests.unit.train.runs import write_data

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
SEQ_LEN = 96


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("titan") / "data"
    write_data(folder)
    return folder


def loader(data: Path, *, n: int = 1, rank: int = 0, batch: int = 2, **config: Any) -> ShardsLoader:
    """Built as torchtitan's trainer does it."""
    made: ShardsLoader = ShardsLoader.Config(**{"dataset_path": str(data / "shards"), **config}).build(
        dp_world_size=n,
        dp_rank=rank,
        tokenizer=CirciusTokenizer.Config().build(tokenizer_path=str(data / "tok")),
        seq_len=SEQ_LEN,
        local_batch_size=batch,
        snapshot_every_n_steps=None,
    )
    return made


def drawn(one: ShardsLoader, n_steps: int) -> list[torch.Tensor]:
    """Ids, positions and targets of some steps, one above the other: (3, rows, T)."""
    iterator = iter(one)
    batches = [next(iterator) for _ in range(n_steps)]
    return [torch.stack([inputs["input"], inputs["positions"], targets]) for inputs, targets in batches]


def test_rows_are_the_batches_of_our_own_training(data: Path) -> None:
    source = TextSource(data / "shards", load_tokenizer(data / "tok"), seq_len=SEQ_LEN)
    expected = Stream([source], batch_tokens=SEQ_LEN).next(6)
    rows = torch.cat(drawn(loader(data), 3), dim=1)
    assert rows.shape == (3, 6, SEQ_LEN)
    n_filled = 0
    for (ids, positions, targets), batch in zip(rows.unbind(1), expected, strict=True):
        n = len(batch.tokens)
        assert ids[:n].equal(batch.tokens)
        assert targets[:n].equal(batch.targets)
        filled = [*batch.lengths, SEQ_LEN - n]
        assert positions.tolist() == [place for length in filled for place in range(length)]
        assert (targets[n:] == -100).all()
        n_filled += n < SEQ_LEN
    assert n_filled


def test_processes_share_the_rows_of_one(data: Path) -> None:
    whole = drawn(loader(data, batch=4), 3)
    parts = [drawn(loader(data, n=2, rank=rank, batch=2), 3) for rank in (0, 1)]
    for step, one in enumerate(whole):
        assert torch.cat([part[step] for part in parts], dim=1).equal(one)


def test_a_checkpoint_of_one_process_goes_on_in_two(data: Path, tmp_path: Path) -> None:
    """By the same calls with which torchtitan saves and loads; two small micro-steps make one large one."""
    first = loader(data, batch=4)
    drawn(first, 3)
    dcp.save({"dataloader": first}, checkpoint_id=str(tmp_path / "saved"))
    expected = drawn(first, 40)  # past the end of an epoch
    parts = []
    for rank in (0, 1):
        one = loader(data, n=2, rank=rank, batch=2)
        drawn(one, 1)  # what it did before does not matter
        dcp.load({"dataloader": one}, checkpoint_id=str(tmp_path / "saved"))
        parts.append(drawn(one, 40))
    for step, rows in enumerate(expected):
        assert torch.cat([part[step] for part in parts], dim=1).equal(rows)


def test_the_state_is_the_same_in_all_processes(data: Path) -> None:
    loaders = [loader(data, n=3, rank=rank) for rank in range(3)]
    for one in loaders:
        drawn(one, 2)
    assert len({str(one.state_dict()) for one in loaders}) == 1


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"dataset_path": None}, r"--dataloader\.dataset_path must name a folder of `circius data prepare`"),
        ({"dataset": "c4"}, r"--dataloader\.dataset stay empty: got .* and 'c4'"),
        ({"dataset_path": "nowhere"}, "nowhere: no meta.json"),
        ({"vocab_size": 100}, "the tokenizer has 259 tokens, but the model's vocabulary has 100"),
    ],
)
def test_what_is_refused(data: Path, config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CirciusError, match=complaint):
        loader(data, **config)


def test_states_that_are_not_ours(data: Path) -> None:
    one = loader(data)
    one.load_state_dict({})
    with pytest.raises(CheckpointError, match=r"the state of another data loader, with \['dp_rank_0', 'world_size'\]"):
        one.load_state_dict({"dp_rank_0": b"", "world_size": 1})
    with pytest.raises(CirciusError, match="the state is of a stream with seed 1, this one has 0"):
        one.load_state_dict(loader(data, seed=1).state_dict())


def test_the_tokenizer(data: Path) -> None:
    own = load_tokenizer(data / "tok")
    tokenizer = CirciusTokenizer.Config().build(tokenizer_path=str(data / "tok"))
    ids = tokenizer.encode("é, so", add_bos=True, add_eos=True)
    assert ids == [*own.encode("é, so", bos=True), min(own.eos_ids)]
    assert tokenizer.decode(ids) == "é, so"
    assert tokenizer.get_vocab_size() == own.vocab_size
