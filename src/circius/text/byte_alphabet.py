"""The printable characters that byte-level BPE writes for the 256 bytes (GPT-2's table)."""


def _alphabet() -> dict[int, str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}


CHARACTER_OF = _alphabet()
"""From a byte to its character; the space is `Ġ`."""
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}
