"""Everything the organisation says is in its log, in an order that anybody can check with other tools and that never changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ENVIRONMENT
from tests.support.dists import Dist, wheel
from tests.support.log_reader import HEAD, Head, checked_head, leaves, log_key, newest_head, root_of, statements
from tests.support.matrix import MatrixUser
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


def fetched(stack: Stack, upstream: Upstream, dist: Dist) -> Dist:
    upstream.publish(dist)
    assert stack.file(dist).body == dist.content
    return dist


def attested(data: list[bytes]) -> set[tuple[str, str]]:
    """(file, sha256) of every attestation among the leaves."""
    return {
        (subject["name"], subject["digest"]["sha256"])
        for statement in statements(data)
        if statement["predicateType"] == "urn:matrix-pypi:attestation:v1"
        for subject in statement["subject"]
    }


def head_with(stack: Stack, key: str, dist: Dist) -> tuple[Head, list[bytes]]:
    """The first head whose leaves hold the file's attestation; every head on the way bears its leaves."""

    def look() -> tuple[Head, list[bytes]] | None:
        head = newest_head(stack, key)
        if head is None:
            return None
        data = leaves(stack, head.size)
        assert root_of(data) == head.root
        return (head, data) if (dist.filename, dist.sha256) in attested(data) else None

    return wait_until(look, f"the log holds the attestation of {dist.filename}")


def test_what_was_installed_stands_in_the_log_and_the_log_bears_its_checkpoint(
    stack: Stack, upstream: Upstream, alice: MatrixUser, name: str
) -> None:
    key = log_key(alice, stack.org)
    first, before = head_with(stack, key, fetched(stack, upstream, wheel(name)))
    later, after = head_with(stack, key, fetched(stack, upstream, wheel(f"{name}b")))
    assert first.origin == later.origin == f"{stack.org.name}/matrix-pypi"
    assert (after[: first.size], later.time >= first.time) == (before, True)


def test_the_head_in_the_trust_room_is_the_one_that_is_served(
    stack: Stack, upstream: Upstream, alice: MatrixUser, name: str
) -> None:
    key = log_key(alice, stack.org)
    head_with(stack, key, fetched(stack, upstream, wheel(name)))
    room = alice.join(f"#pypi-trust:{stack.org.server_name}")

    def the_same() -> bool:
        content = alice.content(room, HEAD, stack.org.bot)
        assert content is None or content.keys() == {"v", "note"}
        return content is not None and checked_head(content["note"], key) == newest_head(stack, key)

    wait_until(the_same, "the trust room holds the newest head")


def test_nothing_is_signed_while_nothing_is_said(
    stack: Stack, upstream: Upstream, alice: MatrixUser, name: str
) -> None:
    key = log_key(alice, stack.org)
    head_with(stack, key, fetched(stack, upstream, wheel(name)))
    seen: list[Head | None] = []

    def unchanged_for_long() -> bool:
        seen.append(newest_head(stack, key))
        return seen[-30:] == [seen[-1]] * 30

    wait_until(unchanged_for_long, "the head stays as it is")


def test_a_bot_that_was_killed_goes_on_with_the_same_log(
    stack: Stack, upstream: Upstream, alice: MatrixUser, name: str
) -> None:
    key = log_key(alice, stack.org)
    head, before = head_with(stack, key, fetched(stack, upstream, wheel(name)))
    stack.kill_and_wait("bot")
    assert newest_head(stack, key) is not None
    _, after = head_with(stack, key, fetched(stack, upstream, wheel(f"{name}b")))
    assert after[: head.size] == before


@pytest.fixture
def own_stack(tmp_path: Path, running_upstream: Upstream) -> Iterator[Stack]:
    """A stack of this test's own, to be stopped and started."""
    with Stack(tmp_path / "home", "--upstream", running_upstream.url, environment=ENVIRONMENT) as stack:
        yield stack


def test_a_bot_with_an_old_copy_of_its_database_serves_and_signs_nothing(
    own_stack: Stack, upstream: Upstream, name: str
) -> None:
    stack, folder = own_stack, own_stack.home / "orga"
    reader = stack.matrix_user("reader")
    key = log_key(reader, stack.org)
    trust_room = reader.join(f"#pypi-trust:{stack.org.server_name}")
    head_with(stack, key, fetched(stack, upstream, wheel(name)))
    stack.stop()
    old = folder.with_name("old")
    old.mkdir()
    for file in folder.glob("bot.db*"):
        shutil.copy2(file, old)
    stack.start()
    newest, _ = head_with(stack, key, fetched(stack, upstream, wheel(f"{name}b")))

    def published() -> dict[str, Any] | None:
        content = reader.content(trust_room, HEAD, stack.org.bot)
        return content if content is not None and checked_head(content["note"], key).size == newest.size else None

    last = wait_until(published, "the newest head is in the trust room")
    stack.stop()
    for file in folder.glob("bot.db*"):
        file.unlink()
    for file in old.iterdir():
        shutil.copy2(file, folder)
    stack.start()
    third = fetched(stack, upstream, wheel(f"{name}c"))
    wait_until(lambda: "nothing is signed any more" in stack.logs(), "the alarm is raised")
    assert stack.file(third).status == 200
    assert reader.content(trust_room, HEAD, stack.org.bot) == last
    head = newest_head(stack, key)
    assert head is not None
    assert head.size < newest.size
    assert (third.filename, third.sha256) not in attested(leaves(stack, head.size))
