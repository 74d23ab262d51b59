"""Finding and reading recipes: a Python file with `def config() -> RunConfig`, or what a run wrote down of itself."""

import json
import runpy
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import circius
from circius.base.errors import CirciusError, ConfigError
from circius.train.config import RunConfig
from circius.train.config_json import from_json, set_fields

_LENGTHS = ("n_steps", "n_epochs", "n_tokens")


def load_recipe(name: str) -> RunConfig:
    """The configuration that a recipe returns, or that a JSON file (a run's run.json, too) holds.

    name: a path, or the name of a file in `recipes/`, here or that came with circius.

    Raises:
        ConfigError: there is none, or it does not give a configuration.
    """
    path = _found(name)
    if path.suffix == ".json":
        return _from_file(path)
    try:
        made = runpy.run_path(str(path)).get("config", lambda: None)()
    except CirciusError:
        raise
    except Exception as error:  # whatever a recipe's own code can raise
        raise ConfigError(f"the recipe {path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, RunConfig):
        raise ConfigError(f"the recipe {path} has no function config() that returns a RunConfig")
    return made


def with_settings(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """The configuration with fields set, by `name=value`; of the ways to say how long a run is, the last said counts.

    >>> from circius.train.config import SourceConfig
    >>> config = RunConfig(kind="pretrain", model="m", sources=(SourceConfig(path="s"),), seq_len=8, batch_tokens=8,
    ...                    n_steps=5)
    >>> with_settings(config, ["n_epochs=2", "lr=0.5"]).optimizer.lr
    0.5

    Raises:
        ConfigError: there is no such field, or it does not take the value.
    """
    return set_fields(config, chain.from_iterable(_alone(assignment) for assignment in assignments))


def _alone(assignment: str) -> list[str]:
    """The setting, and if it says how long the run is, that nothing else does."""
    name = assignment.partition("=")[0].strip()
    others = [f"{other}=none" for other in _LENGTHS if other != name] if name in _LENGTHS else []
    return [*others, assignment]


def _found(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir() and (path / "run.json").is_file():
        return path / "run.json"
    if path.is_file():
        return path
    folders = _folders()
    for folder in folders:
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.py") if _is_recipe(file)})
    raise ConfigError(f"there is no recipe {name!r}: name a file, or one of {', '.join(known) or 'none that is here'}")


def _is_recipe(file: Path) -> bool:
    """Whether it looks like one; what makes data for recipes lies beside them."""
    return "def config(" in file.read_text(encoding="utf-8", errors="replace")


def _folders() -> Sequence[Path]:
    """Where recipes are looked for by name."""
    package = Path(circius.__file__).resolve().parent
    # installed, they are inside the package; in a checkout beside src/
    folders = (Path("recipes"), package / "recipes", package.parents[1] / "recipes")
    return [folder for folder in folders if folder.is_dir()]


def _from_file(path: Path) -> RunConfig:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        content = content["config"]
    return from_json(RunConfig, content)
