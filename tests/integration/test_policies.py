"""The operator's policy and upstream's own words, at every door by which a file can leave: page, file, range, metadata, blocks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.backends import content_of
from tests.support.dists import Dist, wheel
from tests.support.problems import problem
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
COOLDOWN_SECONDS = 3_600
SHORT_SECONDS = 8.0
TOLD_SECONDS = 30
ENVIRONMENT = {
    "MATRIX_PYPI__WORKERS": "2",
    "MATRIX_PYPI__INDEX__RETRY_SECONDS": "1",
    "MATRIX_PYPI__POLICY__COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
    "MATRIX_PYPI__POLICY__COOLDOWN_EXEMPT": '[{project: mx-urgent, versions: ">=2", reason: mends a hole}]',
    "MATRIX_PYPI__POLICY__RESERVED": '["acme-*"]',
    "MATRIX_PYPI__POLICY__DENY": '[{project: mx-denied, versions: "<2", until: 2999-12-31, reason: breaks our templates}]',
}


@pytest.fixture(scope="module")
def running_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def running_stack(running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a policy, whose one peer is the upstream too: whatever it asks of anybody is seen there."""
    peers = json.dumps([{"name": "a", "gateway": running_upstream.origin}])
    environment = ENVIRONMENT | {"MATRIX_PYPI__PEERS": peers}
    home = tmp_path_factory.mktemp("stack") / "home"
    with Stack(home, "--upstream", running_upstream.url, environment=environment) as stack:
        yield stack


@pytest.fixture
def held(stack: Stack, upstream: Upstream, name: str) -> Dist:
    """A wheel that is held here, and that leaves by every door."""
    upstream.publish(dist := wheel(name, payload_bytes=2 << 20))
    stack.page(name)
    assert stack.file(dist).body == dist.content
    wait_until(lambda: doors(stack, dist) == OPEN, "the file leaves by every door", timeout_seconds=TOLD_SECONDS)
    return dist


def doors(stack: Stack, dist: Dist) -> dict[str, int]:
    """The status at each door."""
    cid = content_of(dist.content).cid
    return {
        "file": stack.file(dist).status,
        "head": stack.file(dist, "HEAD").status,
        "range": stack.file(dist, Range="bytes=0-9").status,
        "end": stack.file(dist, Range="bytes=-9").status,
        "known": stack.file(dist, If_None_Match=f'"sha256-{dist.sha256}"').status,
        "metadata": stack.get(f"{dist.path}.metadata").status,
        "head of metadata": stack.get(f"{dist.path}.metadata", "HEAD").status,
        "block": stack.get(f"/ipfs/{cid}?format=raw").status,
        "head of block": stack.get(f"/ipfs/{cid}?format=raw", "HEAD").status,
        "car": stack.get(f"/ipfs/{cid}?format=car").status,
        "part of a car": stack.get(f"/ipfs/{cid}?format=car&entity-bytes=0:9").status,
    }


OPEN = {
    "file": 200,
    "head": 200,
    "range": 206,
    "end": 206,
    "known": 304,
    "metadata": 200,
    "head of metadata": 200,
    "block": 200,
    "head of block": 200,
    "car": 200,
    "part of a car": 200,
}


def shut(status: int) -> dict[str, int]:
    """Every door closed: a file's with `status`, a block's as the specification of gateways says."""
    return {door: 410 if "block" in door or "car" in door else status for door in OPEN}


def quarantine(stack: Stack, dist: Dist) -> None:
    """An operator's order."""
    program = Path(sys.executable).with_name("matrix-pypi")
    arguments = ["quarantine", dist.filename, "--reason", "malware", "--home", str(stack.home)]
    subprocess.run([str(program), *arguments], check=True, capture_output=True)


def set_quarantined(stack: Stack, upstream: Upstream, dist: Dist) -> None:
    upstream.set_status(dist.project, "quarantined")


def remove(stack: Stack, upstream: Upstream, dist: Dist) -> None:
    upstream.publish(wheel(dist.project, "2.0"))
    upstream.remove(dist)


def change(stack: Stack, upstream: Upstream, dist: Dist) -> None:
    upstream.publish(wheel(dist.project, payload_bytes=1_000, salt="other"))


def order(stack: Stack, upstream: Upstream, dist: Dist) -> None:
    quarantine(stack, dist)


@pytest.mark.parametrize(
    ("happens", "rule", "status"),
    [(set_quarantined, "R2", 403), (remove, "R10", 404), (change, "R3", 403), (order, "R1", 403)],
    ids=["quarantined upstream", "removed upstream", "changed upstream", "quarantined by an operator"],
)
def test_what_may_not_leave_any_more_leaves_by_no_door_and_stays_when_upstream_goes_away(
    stack: Stack,
    upstream: Upstream,
    held: Dist,
    happens: Callable[[Stack, Upstream, Dist], None],
    rule: str,
    status: int,
) -> None:
    happens(stack, upstream, held)
    stack.page_once(held.project, lambda page: stack.file(held).status == status, "withdraws the file")
    stack.withdrawn(held.path)
    assert doors(stack, held) == shut(status)
    assert stack.file(held).headers["x-matrix-pypi-rule"] == rule
    upstream.off()
    stack.page_once(held.project, lambda page: True, "is asked for again")
    assert doors(stack, held) == shut(status)


def test_a_young_file_is_on_no_page_and_leaves_by_no_door_until_its_cooldown_is_over(
    stack: Stack, upstream: Upstream, name: str
) -> None:
    ends = time.time() + SHORT_SECONDS
    uploaded = datetime.fromtimestamp(ends - COOLDOWN_SECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    old, young = wheel(name, "1.0"), wheel(name, "2.0")
    upstream.publish(old)
    upstream.publish(young, upload_time=uploaded)
    assert [entry["filename"] for entry in stack.page(name).json["files"]] == [old.filename]
    for path in (young.path, f"{young.path}.metadata"):
        for method, more in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-1"})):
            reply = stack.get(path, method, **more)
            assert (reply.status, reply.headers["x-matrix-pypi-rule"]) == (403, "R7")
            assert "R7 younger than the cooldown (until 20" in reply.reason
    assert problem(stack.file(young)) == stack.file(young).reason
    assert (upstream.hits("GET", young), upstream.hits("HEAD", young)) == (0, 0)
    assert stack.file(old).status == 200
    wait_until(lambda: stack.file(young).status == 200, "the file is served", timeout_seconds=SHORT_SECONDS + 10)
    assert time.time() >= ends
    listed = [entry["filename"] for entry in stack.page(name).json["files"]]
    assert listed == [old.filename, young.filename]


def test_exempt_versions_need_not_wait(stack: Stack, upstream: Upstream) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    one, two = wheel("mx-urgent", "1.0"), wheel("mx-urgent", "2.0")
    for dist in (one, two):
        upstream.publish(dist, upload_time=now)
    assert [entry["filename"] for entry in stack.page("mx-urgent").json["files"]] == [two.filename]
    assert [stack.file(dist).status for dist in (one, two)] == [403, 200]


def test_denied_versions_are_refused_with_the_reason_and_its_end(stack: Stack, upstream: Upstream) -> None:
    one, two = wheel("mx-denied", "1.0"), wheel("mx-denied", "2.0")
    upstream.publish(one, two)
    listed = {entry["filename"]: entry.get("yanked", False) for entry in stack.page("mx-denied").json["files"]}
    reason = "matrix-pypi: R1 denied by policy (breaks our templates, until 3000-01-01T00:00:00Z)"
    assert listed == {one.filename: reason, two.filename: False}
    assert [stack.file(dist).status for dist in (one, two)] == [403, 200]
    assert stack.file(one).reason == reason


def test_nobody_outside_ever_hears_of_a_reserved_name(stack: Stack, upstream: Upstream) -> None:
    dist = wheel("acme-internal", "99.0")
    upstream.publish(dist)
    upstream.forget()
    for _ in range(2):
        page = stack.page("acme-internal", Cache_Control="no-cache")
        assert (page.status, "reserved" in problem(page)) == (403, True)
        assert stack.page("Acme_Internal").status in (308, 403)
    for path in (dist.path, f"{dist.path}.metadata"):
        assert stack.get(path).status == 403
    assert stack.get(f"/ipfs/{content_of(dist.content).cid}?format=raw").status == 404
    assert stack.matrix_user("mallory").resolve(stack.org.alias("acme-internal")) is None
    upstream.off()
    assert stack.page("acme-internal").status == 403
    assert stack.file(dist).status == 403
    upstream.on()
    stack.kill_and_wait("bot")
    assert stack.page("acme-internal").status == 403
    assert [hit.path for hit in upstream.seen() if "acme" in hit.path or "ipfs" in hit.path] == []


def test_that_a_project_is_archived_is_on_its_page_and_with_its_files(
    stack: Stack, upstream: Upstream, name: str
) -> None:
    upstream.publish(dist := wheel(name))
    upstream.set_status(name, "archived", "no time")
    assert stack.page(name).json["project-status"] == {"status": "archived", "reason": "no time"}
    for reply in (stack.file(dist), stack.file(dist, "HEAD"), stack.get(f"{dist.path}.metadata")):
        assert (reply.status, reply.headers["x-matrix-pypi-status"]) == (200, "archived")
