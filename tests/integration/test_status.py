"""`matrix-pypi status` on the real stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dists import wheel
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


def status(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`matrix-pypi status`."""
    program = Path(sys.executable).with_name("matrix-pypi")
    command = [str(program), "status", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_status_of_a_stack_tells_what_it_holds_and_logs(stack: Stack, upstream: Upstream, name: str) -> None:
    one = wheel(name)
    upstream.publish(one)
    assert stack.file(one).status == 200

    def org() -> dict[str, Any]:
        done = status(stack.home, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["orgs"][0]

    wait_until(lambda: org()["figures"]["log_leaves"] > 0, "the file is attested")
    told = wait_until(lambda: (found := org())["holdings"][0]["files"] and found, "the frontend looks again")
    assert [process["ready"] for process in told["processes"]] == [True, True, True]
    assert told["holdings"][0]["health"] == "ok"
    assert told["holdings"][0]["bytes"] >= len(one.content)
    assert "statements logged" in status(stack.home).stdout
