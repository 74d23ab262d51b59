"""What circius.titan says where torchtitan is not what it needs; these run without torchtitan."""

import importlib.metadata
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import circius
from circius.base.errors import CirciusError


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had imported it."""
    for name in [name for name in sys.modules if name.startswith("circius.titan")]:
        monkeypatch.delitem(sys.modules, name)


def installed(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    """Only version `found` of torchtitan is said to be installed, and it cannot be imported."""

    def version(package: str) -> str:
        assert package == "torchtitan"
        if found is None:
            raise PackageNotFoundError(package)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name in [name for name in sys.modules if name.startswith("torchtitan.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchtitan", None)


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (None, r'needs torchtitan, which is not installed: pip install "circius\[titan\]" installs torchtitan 0\.3\.0'),
        ("0.2.2", r'needs torchtitan 0\.3\.0, and 0\.2\.2 is installed: pip install "circius\[titan\]"'),
        ("0.3.0", r"torchtitan 0\.3\.0 is installed, but cannot be imported \(.*\): pip install"),
    ],
)
@pytest.mark.parametrize("module", ["circius.titan", "circius.titan.config_registry"])
def test_what_it_says(monkeypatch: pytest.MonkeyPatch, found: str | None, complaint: str, module: str) -> None:
    installed(monkeypatch, found)
    with pytest.raises(CirciusError, match=complaint):
        import_module(module)


def test_nothing_else_of_circius_names_torchtitan() -> None:
    root = Path(circius.__file__).parent
    naming = [
        file
        for file in root.rglob("*.py")
        if "import torchtitan" in (text := file.read_text()) or "from torchtitan" in text
    ]
    assert {file.parent.name for file in naming} <= {"titan"}


def test_circius_and_its_command_line_import_no_torchtitan() -> None:
    code = "import sys, circius, circius.cli.main; print('torchtitan' in sys.modules, 'circius.titan' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "False"]
