"""Sets from the Hub: the parquet conversion that it keeps of every public data set, read row by row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from circius.base.errors import DataError, DownloadError
from circius.evals.data.catalogue import OnHub, Part
from circius.evals.data.rows import FROM_HUB, as_lines
from circius.weights.hub_errors import TRANSFER_ERRORS

REVISION = "refs/convert/parquet"
_CLIENT = "circius"


class Hub:
    """Supplies parts that the Hub has. What it delivers is checked like everything else: a set that was changed there
    since does not pass.
    """

    name = "the Hub"

    def __init__(self, downloads: Path, *, endpoint: str | None = None) -> None:
        """`downloads` is where the Hub's files are kept meanwhile; interrupted downloads go on there."""
        self._downloads = downloads
        self._endpoint = endpoint
        self._listed: dict[str, list[str]] = {}

    def supply(self, part: Part) -> bytes | None:
        """The content of a part; None if the Hub does not have it.

        Raises:
            DownloadError: it could not be fetched.
            DataError: pyarrow is not installed, or the rows are not as expected.
        """
        if part.hub is None:
            return None
        try:
            return as_lines(self._rows(part.hub), FROM_HUB[part.rows])
        except HfHubHTTPError as error:
            raise DownloadError(f"the Hub answered {error.response.status_code} for {part.hub.repository}") from error
        except TRANSFER_ERRORS as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DownloadError(f"{part.hub.repository} cannot be fetched from the Hub: {reason}") from error
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{part.hub.repository} has other fields than expected: {error!r}") from error

    def _rows(self, source: OnHub) -> Iterator[dict[str, Any]]:
        parquet = _pyarrow_parquet()
        for config in source.configs:
            for name in self._files(source.repository, f"{config}/{source.split}/"):
                file = hf_hub_download(
                    source.repository,
                    name,
                    repo_type="dataset",
                    revision=REVISION,
                    cache_dir=self._downloads,
                    endpoint=self._endpoint,
                    library_name=_CLIENT,
                )
                for batch in parquet.ParquetFile(file).iter_batches():
                    yield from batch.to_pylist()

    def _files(self, repository: str, prefix: str) -> list[str]:
        if repository not in self._listed:
            api = HfApi(endpoint=self._endpoint, library_name=_CLIENT)
            self._listed[repository] = api.list_repo_files(repository, repo_type="dataset", revision=REVISION)
        found = sorted(
            name for name in self._listed[repository] if name.startswith(prefix) and name.endswith(".parquet")
        )
        if not found:
            raise DownloadError(f"{repository} has no {prefix}*.parquet at {REVISION} on the Hub")
        return found


def _pyarrow_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            "pyarrow is not installed, and the Hub's files need it once: `pip install 'circius[parquet]'`"
        ) from error
    return parquet
