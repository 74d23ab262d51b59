"""How much of everything a program may use."""

from dataclasses import asdict, dataclass

from circius.base.errors import InvalidInputError

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use; all of it is given back when it ends.

    Attributes:
        timeout_s: seconds on the wall, its start included.
        processor_s: whole seconds of processor time of each process. It is the limit that endless loops meet, and does
            not depend on what else the machine does; the slowest reference solution of MBPP needs five.
        memory_bytes: of address space for each process, and of memory for all of them together. The second is looked
            at every few hundredths of a second, so that it can be passed for a moment.
        file_bytes: of one file.
        folder_bytes: of all files together; without a jail (`unsafe`) nothing holds this one.
        processes: processes and threads at once.
        open_files: file descriptors of each process.

    Raises:
        InvalidInputError: a limit is too small for Python itself, or no number.
    """

    timeout_s: float = 30.0
    processor_s: int = 10
    memory_bytes: int = 1024 * MIB
    file_bytes: int = MIB
    folder_bytes: int = 16 * MIB
    processes: int = 32
    open_files: int = 64

    def __post_init__(self) -> None:
        least = {
            "timeout_s": 0.1,
            "processor_s": 1,
            "memory_bytes": 64 * MIB,
            "file_bytes": 0,
            "folder_bytes": 64 * 1024,
        }
        for name, given in asdict(self).items():
            kinds = int | float if name == "timeout_s" else int
            if isinstance(given, bool) or not isinstance(given, kinds):
                raise InvalidInputError(
                    f"{name} must be a number, a whole one but for seconds on the wall, got {given!r}"
                )
            floor = least.get(name, 8)
            if not floor <= given < float("inf"):
                raise InvalidInputError(f"{name} must be {floor:g} or more, got {given:g}: Python itself needs that")
