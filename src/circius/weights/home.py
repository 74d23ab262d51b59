"""Where pulled models live."""

import os
from pathlib import Path

from circius.base.errors import StorageError


def circius_home() -> Path:
    """The folder named by the environment variable CIRCIUS_HOME, else ~/.cache/circius; it need not exist.

    Raises:
        StorageError: neither the variable nor a home directory is there to tell.
    """
    given = os.environ.get("CIRCIUS_HOME")
    try:
        return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "circius"
    except RuntimeError as error:
        raise StorageError(f"no home directory is known ({error}): set CIRCIUS_HOME to a folder for models") from error
