"""What a user may call a model on the Hub: owner/name, with a revision and a file if need be."""

import re
from dataclasses import dataclass

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HUB_NAME = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._-]*))?(?::(?P<file>[^/\\:]+\.gguf))?"
)


@dataclass(frozen=True, kw_only=True)
class HubName:
    """One model on the Hub; without `file` the whole repository's, without `revision` its main branch's."""

    repository: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repository}{revision}" + (f":{self.file}" if self.file else "")


def parse_hub_name(name: str) -> HubName | None:
    """The parts of owner/name, owner/name@revision, owner/name:file.gguf or owner/name@revision:file.gguf.

    >>> parse_hub_name("mistralai/Mistral-7B-v0.3")
    HubName(repository='mistralai/Mistral-7B-v0.3', revision='main', file=None)
    >>> parse_hub_name("someone/tiny@v2:tiny.Q8_0.gguf").file
    'tiny.Q8_0.gguf'
    >>> parse_hub_name("../secrets") is parse_hub_name("a/b/c") is None
    True
    """
    match = _HUB_NAME.fullmatch(name)
    if match is None or ".." in name or "--" in match["repository"]:
        return None
    return HubName(repository=match["repository"], revision=match["revision"] or "main", file=match["file"])
