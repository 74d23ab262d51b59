"""The votes on disk: one line each as it is cast, and one that takes it back."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from circius.base.errors import InvalidInputError
from circius.base.journal import Journal, read_journal
from circius.evals.arena.matches import WINNERS, Match, Vote, Winner


class Ballot:
    """One voter's votes on some matches. Used as a context; its methods may be called from any thread.

    voter: what tells this voter from others; with the same one a ballot goes on where it was.
    """

    def __init__(self, folder: Path, voter: str, matches: Sequence[Match]) -> None:
        self.matches = list(matches)
        self._by_id = {match.id: match for match in matches}
        self._journal = Journal(votes_file(folder, voter), {"circius_arena_votes": {"voter": voter}})
        self._lock = threading.Lock()
        self._votes: dict[str, Vote] = {}

    def __enter__(self) -> "Ballot":
        self._journal.__enter__()
        self._votes = {vote.match: vote for vote in _standing(self._journal.rows)}
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.__exit__(*error)

    @property
    def votes(self) -> list[Vote]:
        """Those on these matches that were cast and not taken back."""
        with self._lock:
            return [vote for vote in self._votes.values() if vote.match in self._by_id]

    @property
    def n_others(self) -> int:
        """Votes on other matches: of other models, or of answers that were made anew since."""
        with self._lock:
            return sum(match not in self._by_id for match in self._votes)

    @property
    def n_done(self) -> int:
        """How many of these matches have a vote."""
        with self._lock:
            return sum(match.id in self._votes for match in self.matches)

    def next_match(self) -> Match | None:
        """The first match without a vote; None when all have one."""
        with self._lock:
            return next((match for match in self.matches if match.id not in self._votes), None)

    def cast(self, match_id: str, winner: str) -> Vote:
        """Keeps a vote.

        Raises:
            InvalidInputError: no such match, one that has a vote, or a winner that cannot be.
        """
        if winner not in WINNERS:
            raise InvalidInputError(f"the winner must be one of {', '.join(WINNERS)}, got {winner!r}")
        with self._lock:
            match = self._by_id.get(match_id)
            if match is None:
                raise InvalidInputError(f"there is no match {match_id!r} here")
            if match_id in self._votes:
                raise InvalidInputError(f"match {match_id!r} has a vote already: take that back first")
            own: Winner = winner  # type: ignore[assignment]  # just checked
            vote = Vote(match=match_id, prompt=match.prompt.id, first=match.first, second=match.second, winner=own)
            self._journal.append(
                {"match": match_id, "prompt": vote.prompt, "first": vote.first, "second": vote.second, "winner": own}
            )
            self._votes[match_id] = vote
            return vote

    def take_back(self) -> Match | None:
        """Undoes the latest vote on one of these matches; which it was, or None if there is none."""
        with self._lock:
            mine = [match_id for match_id in self._votes if match_id in self._by_id]
            if not mine:
                return None
            self._journal.append({"match": mine[-1], "winner": None})
            del self._votes[mine[-1]]
            return self._by_id[mine[-1]]


def votes_file(folder: Path, voter: str) -> Path:
    """Where a voter's votes are; the name is made of the voter's digest, whatever characters that has."""
    return folder / f"votes-{hashlib.sha256(voter.encode()).hexdigest()[:12]}.jsonl"


def votes_in(folder: Path) -> dict[str, list[Vote]]:
    """All votes in a folder, by voter.

    Raises:
        InvalidInputError: a file there is none of ours.
    """
    found = {}
    for path in sorted(folder.glob("votes-*.jsonl")):
        header, rows = read_journal(path)
        if "circius_arena_votes" not in header:
            raise InvalidInputError(f"{path} holds no votes of an arena")
        found[str(header["circius_arena_votes"]["voter"])] = _standing(rows)
    return found


def _standing(rows: Sequence[dict[str, object]]) -> list[Vote]:
    """The votes that were not taken back, in the order in which they were cast."""
    votes: dict[str, Vote] = {}
    for row in rows:
        if row["winner"] is None:
            votes.pop(str(row["match"]), None)
        else:
            votes[str(row["match"])] = Vote(**row)  # type: ignore[arg-type]  # as `cast` wrote it
    return list(votes.values())
