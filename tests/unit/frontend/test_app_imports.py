"""What the frontend may not need: it must start where nothing of the bot but `wire` and `process` works."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"mautrix", "asyncpg", "jinja2", "aiosqlite", "cryptography"}:
            raise ImportError(f"{name} is not the frontend's business")
sys.meta_path.insert(0, Refusing())
import index_frontend.app
bot = sorted(name for name in sys.modules if name.startswith("matrix_pypi_bot.") and name.count(".") == 1)
print(" ".join(bot))
"""


def test_the_frontend_imports_nothing_of_the_bot_but_wire_and_process() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["matrix_pypi_bot.process", "matrix_pypi_bot.wire"]
