"""Sets out of a folder: a copy of the store, or files that a user collected under the same names."""

from pathlib import Path

from circius.base.errors import DataError
from circius.evals.data.catalogue import Part
from circius.evals.data.store import content_of


class Folder:
    """Supplies parts from files at their own paths below a folder; a .gz part may lie there unpacked."""

    def __init__(self, path: Path) -> None:
        """Checks that there is such a folder.

        Raises:
            DataError: there is none.
        """
        if not path.is_dir():
            raise DataError(f"{path} is no folder: give one that holds sets, such as {path / 'bbh'}")
        self.name = str(path)
        self._path = path

    def supply(self, part: Part) -> bytes | None:
        """The content of a part; None if the folder does not have it.

        Raises:
            DataError: it cannot be read.
        """
        names = (part.path, part.path.removesuffix(".gz"))
        file = next((self._path / name for name in names if (self._path / name).is_file()), None)
        return None if file is None else content_of(file)
