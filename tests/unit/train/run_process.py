"""One run in a process of its own: `python -m tests.unit.train.run_process DATA RUN [NAME=VALUE ...]`."""

import sys
from pathlib import Path

import torch

from circius.train.recipe import with_settings
from circius.train.run import train
from tests.unit.train.runs import config_of


def main(data: str, run: str, *settings: str) -> int:
    torch.set_num_threads(1)
    finished = train(with_settings(config_of(Path(data)), settings), Path(run))
    return 128 + finished.outcome.signal if finished.outcome.signal else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
