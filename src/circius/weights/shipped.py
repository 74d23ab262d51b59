"""The models that come inside the package, so that there is something to run where nothing can be downloaded."""

from pathlib import Path

SHIPPED = ("story", "story-chat")


def shipped_path(name: str) -> Path:
    """The folder of the shipped model `name`, one of `SHIPPED`: a Hugging Face checkpoint with its model card."""
    return Path(__file__).resolve().parents[1] / "shipped" / name
