"""Which answers meet, and who won.

Two models meet at each prompt twice, once with each of them first, because whoever stands first has an advantage with
some voters. The order of the matches is shuffled, the same way every time, with every pair met once before any is met
again: a voter who stops early has seen the most.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from circius.base.errors import InvalidInputError
from circius.evals.arena.answers import Prompt

Winner = Literal["first", "second", "tie", "neither"]
"""`neither`: both are bad, which counts as a tie."""
WINNERS: tuple[str, ...] = get_args(Winner)


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two answers to a prompt. id: says nothing of the models, and is another's if an answer is."""

    id: str
    prompt: Prompt
    first: str
    second: str
    answers: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What a voter said of a match."""

    match: str
    prompt: str
    first: str
    second: str
    winner: Winner

    @property
    def first_share(self) -> float:
        """What the first model gets of the one point that is given."""
        return {"first": 1.0, "second": 0.0, "tie": 0.5, "neither": 0.5}[self.winner]


def matches_of(prompts: Sequence[Prompt], answers: Mapping[str, Mapping[str, str]], *, seed: int = 0) -> list[Match]:
    """All matches of these models, in the order in which they are to be shown.

    answers: by model, then by prompt id.

    Raises:
        InvalidInputError: fewer than two models, or one without an answer to some prompt.
    """
    if len(answers) < 2:
        raise InvalidInputError(
            f"an arena needs two models or more, got {len(answers)}: {', '.join(answers) or 'none'}"
        )
    for model, own in answers.items():
        missing = [prompt for prompt in prompts if prompt.id not in own]
        if missing:
            raise InvalidInputError(f"{model} has no answer to {len(missing)} prompts, such as {missing[0].text!r:.60}")
    pairs = [(prompt, *pair) for prompt in prompts for pair in combinations(sorted(answers), 2)]
    pairs.sort(key=lambda pair: _digest(seed, "order", pair[0].id, *pair[1:]))
    rounds: tuple[list[Match], list[Match]] = ([], [])
    for prompt, one, other in pairs:
        starts_turned = int(_digest(seed, "side", prompt.id, one, other)[0], 16) % 2
        for number, own_round in enumerate(rounds):
            first, second = (other, one) if (number + starts_turned) % 2 else (one, other)
            texts = (answers[first][prompt.id], answers[second][prompt.id])
            own_id = _digest("match", prompt.id, first, second, *texts)[:16]
            own_round.append(Match(id=own_id, prompt=prompt, first=first, second=second, answers=texts))
    return [*rounds[0], *rounds[1]]


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
