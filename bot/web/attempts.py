"""How often somebody may try to sign in: addresses in, yes or no out. In memory, of bounded size.

Each address, and all together, have a bucket of tries that fills again with time. What succeeds costs nothing.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

PER_ADDRESS = 10
IN_ALL = 200
WINDOW = 600.0
"""Seconds in which an empty bucket is full again."""
KNOWN = 4096
"""Addresses remembered; the one that has not tried for the longest is forgotten first."""


class Attempts:
    """Counts failures; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (float(IN_ALL), clock())

    def wait(self, address: str) -> int:
        """Seconds until this address may try; 0: now."""
        with self._lock:
            own, _ = self._level(self._known.get(_group(address)), PER_ADDRESS)
            everybody, _ = self._level(self._all, IN_ALL)
        missing = max((1 - own) / PER_ADDRESS, (1 - everybody) / IN_ALL)
        return 0 if missing <= 0 else int(missing * WINDOW) + 1

    def failed(self, address: str) -> None:
        """Count one."""
        group = _group(address)
        with self._lock:
            own, now = self._level(self._known.pop(group, None), PER_ADDRESS)
            self._known[group] = (max(own - 1, 0), now)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
            everybody, now = self._level(self._all, IN_ALL)
            self._all = (max(everybody - 1, 0), now)

    def _level(self, bucket: tuple[float, float] | None, full: int) -> tuple[float, float]:
        now = self._clock()
        if bucket is None:
            return float(full), now
        left, at = bucket
        return min(full, left + (now - at) * full / WINDOW), now


def _group(address: str) -> str:
    """An IPv4 address itself; of an IPv6 address its /64, all of which one machine may have."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
