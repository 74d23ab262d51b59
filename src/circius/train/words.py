"""Numbers for people. No torch here."""


def duration(seconds: float) -> str:
    """A time.

    >>> duration(42), duration(3_700), duration(200_000)
    ('42 s', '1 h 1 min', '2 d 7 h')
    """
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    if days < 2:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} d {int(hours % 24)} h"


def size(n_bytes: int) -> str:
    """An amount of memory.

    >>> size(3 * 2**20), size(5 * 2**30)
    ('3.0 MiB', '5.00 GiB')
    """
    amount = n_bytes / 2**20
    return f"{amount:.1f} MiB" if amount < 1024 else f"{amount / 1024:.2f} GiB"
