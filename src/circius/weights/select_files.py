"""Which files of a repository a model needs: official repositories hold the same weights in two layouts."""

import re
from collections.abc import Sequence

from circius.base.errors import DownloadError
from circius.weights.model_name import HubName
from circius.weights.pulled import RemoteFile

_BESIDE = re.compile(
    r"config\.json|params\.json|generation_config\.json|chat_template\.(jinja|json)|tokenizer_config\.json"
    r"|tokenizer\.json|tokenizer\.model(\.v\d+)?|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt"
    r"|tekken\.json"
)
# In order of preference. The first of which a repository has any is taken, and no other.
_WEIGHTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json",
        r"model\.safetensors",
        r"consolidated\.safetensors",
        r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json",
        r"pytorch_model\.bin",
        r"consolidated\.00\.pth",
        r"packed-\d+-of-\d+\.safetensors|packed\.safetensors\.index\.json",
        r"packed\.safetensors",
    )
)


def select_files(name: HubName, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The files of `name` among those of its repository: one GGUF file, or configuration, tokenizer and one copy of
    the weights, safetensors before pickles.

    Raises:
        DownloadError: the repository has no such file, or no weights that circius reads.
    """
    ggufs = [file.name for file in files if file.name.endswith(".gguf")]
    if name.file is not None:
        chosen = [file for file in files if file.name == name.file]
        if not chosen:
            raise DownloadError(f"{name.repository} has no file {name.file}{_listed(' but', ggufs)}")
        return chosen
    for pattern in _WEIGHTS:
        weights = [file for file in files if pattern.fullmatch(file.name)]
        if any(not file.name.endswith(".json") for file in weights):
            description = "params.json" if weights[0].name.startswith("consolidated") else "config.json"
            if any(file.name == description for file in files):
                return [file for file in files if file in weights or _BESIDE.fullmatch(file.name)]
    if ggufs:
        example = HubName(repository=name.repository, revision=name.revision, file=ggufs[0])
        raise DownloadError(f"{name.repository} holds GGUF files: name one, such as {example}{_listed(';', ggufs)}")
    raise DownloadError(f"{name.repository} holds no weights with a config.json or params.json that circius can read")


def _listed(before: str, names: Sequence[str]) -> str:
    return f"{before} {', '.join(names)}" if names else ""
