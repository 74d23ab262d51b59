"""`circius bench` on a tiny model: every figure is there and follows from its parts; none is compared with a time."""

from pathlib import Path

import pytest

from tests.e2e.processes import circius, fails, one_object

QUICK = ["--prompt-lengths=8,40", "--contexts=0,90", "--batches=1,3", "--tokens=3", "--repeats=2", "--threads=1"]


def test_the_object_for_machines(tiny: Path) -> None:
    fields = one_object("bench", tiny, *QUICK)
    figures = fields["figures"]
    assert [figure["name"] for figure in figures] == ["pp8", "pp40", "tg3", "tg3 @ 90", "tg3 x 3"]
    assert [figure["streams"] for figure in figures] == [1, 1, 1, 1, 3]
    limits = fields["limits"]
    for figure in figures:
        assert len(figure["seconds"]) == len(figure["foreign_shares"]) == 2
        assert figure["tokens_per_s"] > 0
        assert figure["share_of_read_limit"] == pytest.approx(figure["bytes_per_s"] / limits["read_all_bytes_per_s"])
    assert limits["operations_per_s"]["float32"] > 0
    assert fields["arithmetic"] == "float32"
    assert fields["machine"]["threads"] == 1
    assert fields["skipped"] == []
    assert any("synthetic" in note for note in fields["notes"])


def test_the_table_for_people(tiny: Path) -> None:
    shown = circius("bench", tiny, *QUICK)
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0].split()[:2] == ["test", "tok/s"]
    assert len(lines) == 6
    assert "limits: read" in shown.stderr
    assert circius("bench", tiny, *QUICK, "--quiet").stderr == ""


def test_what_does_not_fit_is_skipped_with_its_reason(tiny: Path) -> None:
    fields = one_object(
        "bench",
        tiny,
        "--window=none",
        "--prompt-lengths=300",
        "--contexts=0",
        "--batches=1",
        "--tokens=2",
        "--repeats=1",
    )
    assert [figure["name"] for figure in fields["figures"]] == ["tg2"]
    assert fields["skipped"] == ["pp300: 300 tokens do not fit the context of 256"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--contexts=0,x", "--contexts must be whole numbers of at least 0 with commas between, or none, got '0,x'"),
        ("--batches=0", "--batches must be whole numbers of at least 1"),
        ("--prompt-lengths=", "--prompt-lengths must be"),
    ],
)
def test_lists_are_checked_before_the_model_is_looked_for(option: str, said: str) -> None:
    assert said in fails("bench", "no-such-model", option, code=2)
