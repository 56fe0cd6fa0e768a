"""Keys are replaced and ended while everything goes on, and everybody can read it in the manifest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import PinnedOrg, take_manifest
from matrix_pypi_bot.core.statements.keys import Manifest
from tests.integration.conftest import ENVIRONMENT
from tests.support.dists import wheel
from tests.support.log_reader import newest_head
from tests.support.matrix import MatrixUser
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.verifying import ATTESTATION, KEYS, keyid, mirror_key, public_key, verified
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def own_stack(tmp_path: Path, running_upstream: Upstream) -> Iterator[Stack]:
    """A stack of this test's own: its keys are replaced."""
    with Stack(tmp_path / "home", "--upstream", running_upstream.url, environment=ENVIRONMENT) as stack:
        yield stack


def keys(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`matrix-pypi keys ...` with the bot's configuration."""
    program = Path(sys.executable).with_name("matrix-pypi")
    command = [str(program), "keys", *arguments, "-c", stack.org.told["config_file"]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def listed(stack: Stack, reader: MatrixUser) -> dict[str, Any]:
    """The keys of the manifest in the trust room, by their ids; it is checked with the root key."""
    room = reader.join(f"#pypi-trust:{stack.org.server_name}")
    manifest = reader.wait_for_content(room, KEYS, stack.org.bot)
    told = verified(manifest, public_key(stack.org.secret("root_key_file")))["predicate"]["keys"]
    return {keyid(key["key"]): key for key in told}


def signed_by(stack: Stack, key: str) -> bool:
    """Whether the newest head is by this log key, and not still by the one before."""
    try:
        return newest_head(stack, key) is not None
    except KeyError:
        return False


def test_a_mirror_key_and_a_log_key_are_replaced_and_the_old_ones_ended(
    own_stack: Stack, upstream: Upstream, name: str
) -> None:
    stack = own_stack
    reader = stack.matrix_user("reader")
    old = mirror_key(reader, stack.org)
    (old_log,) = [key["key"] for key in listed(stack, reader).values() if "log" in key["roles"]]
    upstream.publish(before := wheel(name))
    assert stack.file(before).status == 200
    assert [keys(stack, "rotate", which).returncode for which in ("mirror", "log")] == [0, 0]
    stack.kill_and_wait("bot")
    new = public_key(stack.org.secret("mirror_key_file"))
    wait_until(lambda: keyid(new) in listed(stack, reader), "the manifest lists the new key")
    told = listed(stack, reader)
    assert (told[keyid(old)]["revoked"], told[keyid(new)]["revoked"]) == (None, None)
    assert told[keyid(old_log)]["revoked"]["reason"] == "replaced by another log key"
    (new_log,) = [key["key"] for key in told.values() if "log" in key["roles"] and key["revoked"] is None]

    refused = keys(stack, "revoke", keyid(new), "--reason", "stolen")
    assert (refused.returncode, "signs now" in refused.stderr) == (2, True)
    ended = keys(
        stack, "revoke", keyid(old), "--reason", "stolen", "--compromised-since", "2026-01-01T00:00:00Z", "--json"
    )
    assert (ended.returncode, json.loads(ended.stdout)["version"]) == (0, 3)
    wait_until(lambda: listed(stack, reader)[keyid(old)]["revoked"], "the manifest says that the old key ended")
    assert listed(stack, reader)[keyid(old)]["revoked"]["compromised_since"] == "2026-01-01T00:00:00Z"
    assert "compromised since 2026-01-01T00:00:00Z: stolen" in keys(stack, "show").stdout

    upstream.publish(after := wheel(f"{name}b"))
    assert stack.file(after).status == 200
    room = wait_until(lambda: reader.resolve(stack.org.alias(after.project)), "the room is there")
    content = reader.wait_for_content(reader.join(room), ATTESTATION, f"{keyid(new)[:16]}/{after.filename}")
    assert verified(content, new)["subject"][0]["name"] == after.filename
    assert stack.file(before).body == before.content
    wait_until(lambda: signed_by(stack, new_log), "the new log key signs heads")


def test_a_root_is_replaced_and_who_pinned_the_old_one_follows(own_stack: Stack) -> None:
    stack = own_stack
    reader = stack.matrix_user("reader")
    room = reader.join(f"#pypi-trust:{stack.org.server_name}")
    old = public_key(stack.org.secret("root_key_file"))
    first = reader.wait_for_content(room, KEYS, stack.org.bot)
    assert keys(stack, "rotate", "root").returncode == 0
    new = public_key(stack.org.secret("root_key_file"))
    stack.kill_and_wait("bot")
    second = wait_until(
        lambda: (told := reader.content(room, KEYS, stack.org.bot)) != first and told, "the next manifest is there"
    )
    assert isinstance(second, dict)
    predicate = verified(second, old, new)["predicate"]
    assert ([root["key"] for root in predicate["roots"]], predicate["version"]) == ([new], 2)
    pinned = PinnedOrg(name="orga", roots=(bytes.fromhex(old),), threshold=1, roles=frozenset())
    held = take_manifest(pinned, None, first["dsse"], now=Instant(0)).statement.predicate
    assert isinstance(held, Manifest)
    taken = take_manifest(pinned, held, second["dsse"], now=Instant(0)).statement.predicate
    assert isinstance(taken, Manifest)
    assert taken.version == 2
    assert f"ed25519:{new}  root" in keys(stack, "show").stdout
