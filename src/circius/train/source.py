"""What a stream of training examples draws from."""

from typing import Protocol

from circius.train.example import Example


class Source(Protocol):
    """A list of examples whose lengths are known without making them; the same list whenever it is opened."""

    @property
    def name(self) -> str:
        """What it is called in errors and in the state of a stream."""
        ...

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def n_tokens(self, index: int) -> int:
        """The length of an example in ids. Cheap: every process asks it of every example."""
        ...

    def example(self, index: int) -> Example:
        """The example itself; only the process that trains on it asks for it."""
        ...
