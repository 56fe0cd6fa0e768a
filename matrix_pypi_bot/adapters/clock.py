"""The only file that asks what time it is."""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock` by the machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000
