"""The answers that a model may give to the question for a category, as the tokens that they begin with.

Their names differ mostly in the first token, so one place of one forward pass says what the model would answer. Where
several begin alike (`unqualified law`, `unqualified health`; many of them in a vocabulary of bytes) the tree of their
tokens has a second fork, and the model is asked there too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from circius.base.errors import TemplateError
from circius.text import ChatTemplate, Message

Path = tuple[int, ...]
"""The tokens from the beginning of an answer to a place in the tree."""


@dataclass
class _Node:
    children: "dict[int, _Node]" = field(default_factory=dict)
    key: str | None = None
    """Whose spelling ends here."""


class AnswerTree:
    """The spellings of some names as a model would begin its answer with them.

    Each name may be written as it is or with a capital first letter; a model's share for it is that of both.
    """

    def __init__(self, template: ChatTemplate, names: Mapping[str, str]) -> None:
        """names: what the model writes, by the key that its probability shall have.

        Raises:
            TemplateError: the vocabulary cannot tell two of the names apart.
        """
        self.keys = tuple(names)
        self._root = _Node()
        for key, name in names.items():
            for spelling in {name, name[:1].upper() + name[1:]}:
                self._add(key, spelling_ids(template, spelling))
        self.forks: dict[Path, tuple[int, ...]] = dict(self._forks(self._root, ()))
        """The places where the answers part, nearer ones first, each with the tokens that go on from there."""
        self.depth = max(len(path) for path in self.forks) + 1

    def _add(self, key: str, ids: Sequence[int]) -> None:
        node = self._root
        for token in ids:
            if node.key is not None:
                break
            node = node.children.setdefault(token, _Node())
        if node.key is not None or node.children:
            raise TemplateError(
                f"this vocabulary cannot tell the category {key!r} from {node.key or 'another'!r}: one begins like the "
                "whole of the other"
            )
        node.key = key

    def _forks(self, node: _Node, path: Path) -> Iterable[tuple[Path, tuple[int, ...]]]:
        if len(node.children) > 1 or not path:
            yield path, tuple(node.children)
        for token, child in node.children.items():
            yield from self._forks(child, (*path, token))

    def shares(self, at: Mapping[Path, Mapping[int, float]]) -> dict[str, float]:
        """How the answers' probability, taken as 1, is divided among the keys.

        at: the probabilities of the tokens that go on from a fork, which need not add up to anything. From a fork that
            is missing all go on alike.
        """
        found = dict.fromkeys(self.keys, 0.0)
        self._share(self._root, (), 1.0, at, found)
        return found

    def _share(
        self, node: _Node, path: Path, share: float, at: Mapping[Path, Mapping[int, float]], found: dict[str, float]
    ) -> None:
        if node.key is not None:
            found[node.key] += share
            return
        here = at.get(path, {})
        total = sum(here.get(token, 0.0) for token in node.children)
        for token, child in node.children.items():
            part = here.get(token, 0.0) / total if total > 0 else 1 / len(node.children)
            self._share(child, (*path, token), share * part, at, found)


def spelling_ids(template: ChatTemplate, text: str) -> list[int]:
    """The ids with which an answer that reads `text` begins, right after the prompt that asks for it.

    A template that lets its last message be continued says so itself, its spaces and its ways with pieces included;
    for any other it is the text on its own, as it stands after fixed ids.
    """
    asked = [Message("user", "?")]
    prompt = template.encode(asked)
    try:
        whole = template.encode([*asked, Message("assistant", text)], continue_final=True)
    except TemplateError:
        whole = []
    if len(whole) > len(prompt) and whole[: len(prompt)] == prompt:
        return whole[len(prompt) :]
    fixed = template.tokenizer.encode_parts([()])
    return template.tokenizer.encode_parts([(), text])[len(fixed) :]
