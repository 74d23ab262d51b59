"""Policies: what each says, decided by the sums of probabilities, and files that are checked before they are used."""

import json
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.moderate.policy import Policy, read_policy
from circius.moderate.reflect import Verdict

FIELDS: dict[str, Any] = {
    "format": "circius-policy", "version": 1, "categories": "short",
    "actions": {"illegal": "refuse", "unqualified_advice": "flag"}, "otherwise": "refuse",
    "flag_at": 0.3, "refuse_at": 0.6, "refusal": "No.",
}  # fmt: skip


def verdict(illegal: float = 0.0, hate: float = 0.0, advice: float = 0.0) -> Verdict:
    scores = {"illegal": illegal, "hate_violence_harassment": hate, "unqualified_advice": advice}
    return Verdict(scores={**scores, "not_moderated": 1 - sum(scores.values())}, coverage=1.0)


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "policy.json"
    path.write_text(json.dumps({key: value for key, value in {**FIELDS, **changes}.items() if value != "gone"}))
    return path


@pytest.mark.parametrize(
    ("given", "decision"),
    [
        (verdict(), "allow"),
        (verdict(advice=0.29), "allow"),
        (verdict(advice=0.99), "flag"),
        (verdict(illegal=0.2, advice=0.1), "flag"),
        (verdict(illegal=0.59), "flag"),
        (verdict(illegal=0.3, hate=0.3), "refuse"),
        (verdict(hate=0.6), "refuse"),
    ],
)
def test_probabilities_of_one_action_add_up(tmp_path: Path, given: Verdict, decision: str) -> None:
    assert read_policy(write(tmp_path)).decide(given) == decision


def test_what_is_allowed_never_counts() -> None:
    policy = Policy(categories="short", actions={"illegal": "refuse"})
    assert policy.decide(verdict(hate=0.5, advice=0.5)) == "allow"
    assert policy.decide(verdict(illegal=0.5)) == "refuse"
    assert policy.reason(verdict(illegal=0.1, hate=0.9)) == "illegal"
    assert dict(policy.actions) == {
        "illegal": "refuse", "hate_violence_harassment": "allow", "unqualified_advice": "allow"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, 'it lacks "format": "circius-policy"'),
        ({"version": 2}, "has version 2, this circius reads version 1"),
        ({"colour": "red"}, "'colour' is not known in a policy"),
        ({"categories": "medium"}, "categories 'medium' are not known"),
        ({"actions": {"malware": "refuse"}}, "'malware' is no category of the short list: use illegal"),
        ({"actions": {"illegal": "delete"}}, "actions.illegal must be one of allow, flag, refuse, got 'delete'"),
        ({"actions": ["illegal"]}, "actions must map categories to actions"),
        ({"otherwise": None}, "otherwise must be one of"),
        ({"flag_at": 0}, "flag_at must be a number above 0 and at most 1, got 0"),
        ({"refuse_at": "0.5"}, "refuse_at must be a number"),
        ({"refuse_at": True}, "refuse_at must be a number"),
        ({"refusal": ""}, "refusal must be a text that is not empty"),
        ({"actions": {}, "otherwise": "allow"}, "it would do nothing"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(InvalidInputError, match=message) as error:
        read_policy(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*none\.json: No such file"):
        read_policy(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InvalidInputError, match="must hold one JSON object"):
        read_policy(tmp_path / "list.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidInputError, match="is not JSON"):
        read_policy(tmp_path / "bad.json")
