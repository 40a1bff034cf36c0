"""Random bytes for keys and nonces, asked of the kernel by the page: a record needs four small helpings."""

from __future__ import annotations

import os
import threading
from typing import Final

_PAGE_BYTES: Final = 4096


class RandomSupply:
    """Hands out bytes of `os.urandom`, each once; for any thread, and never the same in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._page = b""
        self._used = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def take(self, count: int) -> bytes:
        """So many bytes, at most a page."""
        if not 0 <= count <= _PAGE_BYTES:
            raise ValueError(f"a helping has 0 to {_PAGE_BYTES} bytes")
        with self._lock:
            end = self._used + count
            if end > len(self._page):
                self._page, self._used, end = os.urandom(_PAGE_BYTES), 0, count
            taken = self._page[self._used : end]
            self._used = end
        return taken

    def _forget(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it
        self._page, self._used = b"", 0


_SUPPLY: Final = RandomSupply()
random_bytes = _SUPPLY.take
