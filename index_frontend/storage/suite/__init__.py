"""What every storage backend must do, tried out. A plug-in's tests call `check`; so does `matrix-pypi-index check-storage`.

    async for outcome in check(lambda: Backend("mine", {...})):
        assert outcome.result != "failed", f"{outcome.point}: {outcome.detail}"

It needs no test framework and may be run against a backend that is in use: it stores random files of its own, looks at no others, and
removes them again. What a backend cannot do (`StorageBackend.capabilities`) is not asked of it.
"""

from index_frontend.storage.suite.running import Outcome, check, points
from index_frontend.storage.suite.trial import Sample

__all__ = ["Outcome", "Sample", "check", "points"]
