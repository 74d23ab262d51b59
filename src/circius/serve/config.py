"""What a server is told when it starts."""

from dataclasses import dataclass, field
from pathlib import Path

from circius.base.errors import InvalidInputError
from circius.moderate.policy import Policy

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """names: what requests may call the model; the first is the one that it gives itself. keys: those of the clients;
    none for a server that only this machine can reach. max_open: requests that run or wait; more get 503.
    max_body_bytes, timeout_s: of one request. drain_s: how long a server that is asked to stop waits for its answers.
    origins: web pages of other servers that may ask this one. adapters: by name, those that are there from the start.
    adapter_folder: where others may come from while the server runs; None for nowhere. admin_keys: who may load them.
    prompt_policy, answer_policy: what happens to prompts and answers; None for no look at them.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...]
    keys: tuple[str, ...] = field(default=(), repr=False)
    is_open: bool = False
    max_open: int = 256
    max_body_bytes: int = 4 << 20
    timeout_s: float = 3600.0
    drain_s: float = 30.0
    origins: tuple[str, ...] = ()
    adapters: tuple[tuple[str, Path], ...] = ()
    adapter_folder: Path | None = None
    max_adapters: int = 16
    admin_keys: tuple[str, ...] = field(default=(), repr=False)
    prompt_policy: Policy | None = None
    answer_policy: Policy | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise InvalidInputError("a server needs at least one name for its model")
        if self.host not in LOOPBACK and not self.keys and not self.is_open:
            raise InvalidInputError(
                f"host {self.host} can be reached from other machines, and there is no API key: give --api-key-file, "
                "or --no-auth if everybody may use this server"
            )
        self._check_adapters()
        for key in (*self.keys, *self.admin_keys):
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise InvalidInputError("an API key must be at least 8 printable ASCII characters without spaces")
        if not 0 <= self.port <= 65535:
            raise InvalidInputError(f"port must be 0 to 65535, got {self.port}")
        for name in ("max_open", "max_body_bytes", "timeout_s", "max_adapters"):
            if getattr(self, name) <= 0:
                raise InvalidInputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.drain_s < 0:
            raise InvalidInputError(f"drain_s must be 0 or more, got {self.drain_s}")

    def _check_adapters(self) -> None:
        names = [*self.names, *(name for name, _ in self.adapters)]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInputError(f"two things cannot have the name {name!r}: give each adapter one of its own")
        if len(self.adapters) > self.max_adapters:
            raise InvalidInputError(f"{len(self.adapters)} adapters, and no more than {self.max_adapters} may be")
        if self.adapter_folder is None:
            return
        if not self.adapter_folder.is_dir():
            raise InvalidInputError(f"the folder of adapters {self.adapter_folder} is not there")
        if (self.keys or self.host not in LOOPBACK) and not self.admin_keys:
            raise InvalidInputError(
                "loading adapters while the server runs is for administrators: give --admin-key-file beside "
                "--adapter-folder"
            )
