"""Addresses of instances: each instance has its own, as in Snowflake, out of the loopback network's sixteen million."""

from __future__ import annotations

from itertools import count

_PER_BLOCK = 254
_BLOCKS = 2**16


class Addresses:
    """The addresses in use. Not thread-safe: the scheduler's lock guards it."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def take(self, port: int) -> str:
        """Return an address that no running instance has.

        :param port: the server's port, by which servers on one machine get different addresses.
        """
        address = next(address for number in count() if (address := _address(port, number)) not in self._used)
        self._used.add(address)
        return address

    def give_back(self, address: str) -> None:
        """Release an address."""
        self._used.discard(address)


def _address(port: int, number: int) -> str:
    block, host = divmod(number, _PER_BLOCK)
    high, low = divmod((port + block) % _BLOCKS, 256)
    return f"127.{high}.{low}.{host + 1}"
