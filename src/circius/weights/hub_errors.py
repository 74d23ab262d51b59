"""What went wrong between us and the Hub, in one line that says what to do."""

import errno

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from circius.base.errors import DownloadError
from circius.weights.model_name import HubName

# The bases of the Hub's own error are the root of its HTTP client's errors and OSError: every way in which a request,
# or the writing of what it brings, can fail. Naming the client itself would tie us to it; it changed twice already.
TRANSFER_ERRORS: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub could not be asked at all, so that what was pulled before is the best there is."""
    if isinstance(error, OfflineModeIsEnabled):
        return True
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, TRANSFER_ERRORS) and not _is_local(error)


def explain(error: Exception, name: HubName) -> DownloadError:
    """The error to raise for one met while pulling `name`."""
    page = f"https://huggingface.co/{name.repository}"
    match error:
        case GatedRepoError():
            return DownloadError(
                f"{name.repository} is gated: accept its terms at {page}, log in with `hf auth login`, then pull again"
            )
        case RepositoryNotFoundError():
            return DownloadError(
                f"the Hub has no repository {name.repository}, or it is private: check the name, "
                "or log in with `hf auth login`"
            )
        case RevisionNotFoundError():
            return DownloadError(f"{name.repository} has no revision {name.revision!r}: see {page}/branches")
        case EntryNotFoundError():
            return DownloadError(f"a file of {name} is gone from the Hub: pull again")
        case OfflineModeIsEnabled():
            return DownloadError(f"{name} is not pulled yet, and HF_HUB_OFFLINE forbids it: unset it to pull")
        case HfHubHTTPError():
            status = error.response.status_code
            advice = "log in with `hf auth login`" if status in (401, 403) else "try again later; it resumes"
            return DownloadError(f"the Hub answered {status} for {name}: {advice}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(f"no space left while pulling {name}: free some, then pull again; it resumes")
    if _is_local(error):
        return DownloadError(f"cannot store {name}: {error}")
    return DownloadError(
        f"the connection to the Hub failed ({type(error).__name__}: {_first_line(error)}): check the network, then "
        f"pull {name} again; it resumes"
    )


def _is_local(error: Exception) -> bool:
    """Whether the operating system refused to store a file; only such errors carry a file's name."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]
