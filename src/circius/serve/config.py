"""What a server is told when it starts."""

from dataclasses import dataclass, field

from circius.base.errors import InvalidInputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """names: what requests may call the model; the first is the one that it gives itself. keys: those of the clients;
    none for a server that only this machine can reach. max_open: requests that run or wait; more get 503.
    max_body_bytes, timeout_s: of one request. drain_s: how long a server that is asked to stop waits for its answers.
    origins: web pages of other servers that may ask this one.
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

    def __post_init__(self) -> None:
        if not self.names:
            raise InvalidInputError("a server needs at least one name for its model")
        if self.host not in LOOPBACK and not self.keys and not self.is_open:
            raise InvalidInputError(
                f"host {self.host} can be reached from other machines, and there is no API key: give --api-key-file, "
                "or --no-auth if everybody may use this server"
            )
        for key in self.keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise InvalidInputError("an API key must be at least 8 printable ASCII characters without spaces")
        if not 0 <= self.port <= 65535:
            raise InvalidInputError(f"port must be 0 to 65535, got {self.port}")
        for name in ("max_open", "max_body_bytes", "timeout_s"):
            if getattr(self, name) <= 0:
                raise InvalidInputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.drain_s < 0:
            raise InvalidInputError(f"drain_s must be 0 or more, got {self.drain_s}")
