"""What is to happen to a text of each category: let it through, mark it, or refuse it.

A policy is a JSON file:

    {"format": "circius-policy", "version": 1,
     "categories": "long",
     "actions": {"child_abuse": "refuse", "malware": "refuse", "adult": "flag"},
     "otherwise": "allow",
     "flag_at": 0.5, "refuse_at": 0.5,
     "refusal": "I cannot help with that."}

The probabilities of all categories that are to be refused are added up, and so are those to be flagged or refused: a
text that is dangerous in one of two ways, of which nobody can say which, is dangerous.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from circius.base.errors import InvalidInputError
from circius.moderate.categories import NOT_MODERATED, categories_named
from circius.moderate.reflect import Verdict

FORMAT, VERSION = "circius-policy", 1
DEFAULT_REFUSAL = "I cannot help with that."

Action = Literal["allow", "flag", "refuse"]
ACTIONS: tuple[str, ...] = get_args(Action)
_KEYS = ("format", "version", "categories", "actions", "otherwise", "flag_at", "refuse_at", "refusal")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """categories: "short" or "long". actions: by key; a category that is not there gets `otherwise`. flag_at,
    refuse_at: from which probability on, in (0, 1]. refusal: what is shown in place of a refused answer.

    Raises:
        InvalidInputError: a value that is not allowed; the error names it.
    """

    categories: str = "long"
    actions: Mapping[str, Action] = field(default_factory=dict)
    otherwise: Action = "allow"
    flag_at: float = 0.5
    refuse_at: float = 0.5
    refusal: str = DEFAULT_REFUSAL

    def __post_init__(self) -> None:
        keys = [each.key for each in categories_named(self.categories)]
        for key, action in self.actions.items():
            if key not in keys:
                raise InvalidInputError(
                    f"actions: {key!r} is no category of the {self.categories} list: use {', '.join(keys)}"
                )
            _check_action(f"actions.{key}", action)
        _check_action("otherwise", self.otherwise)
        for name in ("flag_at", "refuse_at"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                raise InvalidInputError(f"{name} must be a number above 0 and at most 1, got {value!r}")
        if not isinstance(self.refusal, str) or not self.refusal:
            raise InvalidInputError(f"refusal must be a text that is not empty, got {self.refusal!r}")
        whole = {key: self.actions.get(key, self.otherwise) for key in keys}
        if set(whole.values()) == {"allow"}:
            raise InvalidInputError("the policy allows every category, so it would do nothing: flag or refuse one")
        object.__setattr__(self, "actions", MappingProxyType(whole))

    def decide(self, verdict: Verdict) -> Action:
        """What is to happen to a text with this verdict.

        >>> policy = Policy(categories="short", actions={"illegal": "refuse"}, otherwise="flag")
        >>> scores = {"illegal": 0.4, "hate_violence_harassment": 0.2, "unqualified_advice": 0.1, "not_moderated": 0.3}
        >>> policy.decide(Verdict(scores=scores, coverage=1.0))
        'flag'
        """
        refused = sum(verdict.scores[key] for key, action in self.actions.items() if action == "refuse")
        marked = sum(verdict.scores[key] for key, action in self.actions.items() if action != "allow")
        if refused >= self.refuse_at:
            return "refuse"
        return "flag" if marked >= self.flag_at else "allow"

    def reason(self, verdict: Verdict) -> str:
        """The likeliest of the categories that the policy does not allow."""
        marked = [key for key, action in self.actions.items() if action != "allow" and key != NOT_MODERATED]
        return max(marked, key=lambda key: verdict.scores[key])

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Policy":
        """The policy that a JSON object describes.

        Raises:
            InvalidInputError: it is none, of another version, or has a key that is not known.
        """
        if mapping.get("format") != FORMAT:
            raise InvalidInputError(f'this is no policy: it lacks "format": "{FORMAT}"')
        if mapping.get("version") != VERSION:
            raise InvalidInputError(
                f"the policy has version {mapping.get('version')!r}, this circius reads version {VERSION}"
            )
        if unknown := [key for key in mapping if key not in _KEYS]:
            raise InvalidInputError(f"{unknown[0]!r} is not known in a policy: use {', '.join(_KEYS)}")
        if not isinstance(mapping.get("actions", {}), Mapping):
            raise InvalidInputError(f"actions must map categories to actions, got {mapping['actions']!r:.80}")
        return cls(**{key: value for key, value in mapping.items() if key not in ("format", "version")})


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        InvalidInputError: it cannot be read, or is not a policy; the error names the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInputError(f"{path} is no policy: it must hold one JSON object")
    try:
        return Policy.from_mapping(found)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from None


def _check_action(name: str, action: object) -> None:
    if action not in ACTIONS:
        raise InvalidInputError(f"{name} must be one of {', '.join(ACTIONS)}, got {action!r}")
