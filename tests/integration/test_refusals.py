"""What must not be installed is refused, with a line that pip and uv both show; and what was only broken works again afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.dists import Dist, wheel
from tests.support.installers import INSTALLERS, Environment, Installer
from tests.support.member import is_stale
from tests.support.problems import problem
from tests.support.stack import Stack
from tests.support.upstream import Upstream

pytestmark = pytest.mark.integration
each_installer = pytest.mark.parametrize("installer", INSTALLERS, ids=lambda installer: installer.name)
MakeEnvironment = Callable[[], Environment]


@pytest.fixture
def held(stack: Stack, upstream: Upstream, name: str) -> Dist:
    """A wheel that was fetched before and is held here."""
    upstream.publish(dist := wheel(name, payload_bytes=100_000))
    stack.page(name)
    assert stack.file(dist).body == dist.content
    return dist


def republish(stack: Stack, upstream: Upstream, dist: Dist) -> Dist:
    """Other bytes under the file's name, and the stack has seen it."""
    upstream.publish(other := wheel(dist.project, payload_bytes=100_000, salt="other"))
    stack.page_once(dist.project, lambda page: bool(page.json["files"][0].get("yanked")), "lists the file as yanked")
    stack.withdrawn(dist.path)
    return other


def test_a_digest_that_changes_upstream_is_refused_under_either_address(
    stack: Stack, upstream: Upstream, held: Dist
) -> None:
    other = republish(stack, upstream, held)
    for path in (held.path, other.path):
        for suffix in ("", ".metadata"):
            reply = stack.get(path + suffix)
            assert (reply.status, reply.headers.get("x-matrix-pypi-rule")) == (403, "R3")
            assert "R3" in problem(reply)
            assert reply.headers["cache-control"] == "no-store"
    (entry,) = stack.page(held.project).json["files"]
    assert "R3" in entry["yanked"]
    assert upstream.hits("GET", other) == 0


@each_installer
def test_the_reason_of_a_refusal_reaches_whoever_installs(
    stack: Stack, upstream: Upstream, held: Dist, installer: Installer, empty_environment: MakeEnvironment
) -> None:
    republish(stack, upstream, held)
    reason = problem(stack.file(held))
    outcome = installer.install(stack.org.simple, f"{held.project}==1.0", environment=empty_environment())
    assert (outcome.returncode != 0, outcome.packages) == (True, {})
    assert reason in outcome.one_line, outcome.output
    assert "Traceback" not in outcome.output


def test_a_digest_that_changed_before_anybody_fetched_the_file_is_refused_too(
    stack: Stack, upstream: Upstream, name: str
) -> None:
    upstream.publish(first := wheel(name))
    stack.page(name)
    other = republish(stack, upstream, first)
    assert [stack.file(dist).status for dist in (first, other)] == [403, 403]


@each_installer
@pytest.mark.parametrize("payload_bytes", [0, 300_000], ids=["smaller than the tail", "larger than the tail"])
def test_after_a_corrupted_body_the_next_plain_install_succeeds_as_soon_as_upstream_is_well(
    stack: Stack,
    upstream: Upstream,
    name: str,
    installer: Installer,
    empty_environment: MakeEnvironment,
    payload_bytes: int,
) -> None:
    upstream.publish(dist := wheel(name, payload_bytes=payload_bytes))
    upstream.corrupt(dist)
    failed = installer.install(stack.org.simple, name, environment=empty_environment())
    assert (failed.returncode != 0, failed.packages) == (True, {}), failed.output
    upstream.mend()
    succeeded = installer.install(stack.org.simple, name, environment=empty_environment())
    assert succeeded.packages == {name: "1.0"}, succeeded.output


def test_a_page_seen_but_never_downloaded_leaves_nothing_to_serve_offline(
    stack: Stack, upstream: Upstream, name: str
) -> None:
    upstream.publish(dist := wheel(name))
    assert stack.page(name).status == 200
    upstream.off()
    wait = stack.page_once(name, lambda page: page.status == 503, "has nothing to offer while upstream is away")
    assert problem(wait)
    assert int(wait.headers["retry-after"]) <= 5
    reply = stack.everywhere(dist.path, lambda reply: "x-matrix-pypi-rule" in reply.headers, "has a rule for")
    assert (reply.status, reply.headers["x-matrix-pypi-rule"]) == (504, "R14")
    assert "R14" in problem(reply)


def test_offline_a_page_offers_what_was_downloaded_and_no_more(stack: Stack, upstream: Upstream, held: Dist) -> None:
    upstream.publish(seen := wheel(held.project, "2.0"))
    stack.page_once(held.project, lambda page: len(page.json["files"]) == 2, "lists both files")
    upstream.off()
    page = stack.stale_page(held.project).json
    installable = [entry["filename"] for entry in page["files"] if not entry.get("yanked")]
    assert installable == [held.filename]
    assert [stack.file(dist).status for dist in (held, seen)] == [200, 504]


def test_a_file_that_upstream_removed_stays_refused_when_upstream_then_goes_away(
    stack: Stack, upstream: Upstream, held: Dist
) -> None:
    upstream.publish(wheel(held.project, "2.0"))
    upstream.remove(held)

    def refused() -> tuple[int, str | None]:
        reply = stack.file(held)
        assert "R10" in problem(reply)
        return reply.status, reply.headers.get("x-matrix-pypi-rule")

    stack.page_once(held.project, lambda page: held.filename not in page.body.decode(), "lists the file no more")
    stack.withdrawn(held.path)
    assert refused() == (404, "R10")
    upstream.off()
    stack.page_once(held.project, lambda page: page.status != 200 or is_stale(page), "shows that upstream is away")
    assert refused() == (404, "R10")


def test_a_project_that_upstream_removed_is_gone_after_a_second_look(
    stack: Stack, upstream: Upstream, held: Dist
) -> None:
    upstream.remove_project(held.project)
    gone = stack.page_once(held.project, lambda page: page.status == 404, "is gone")
    assert problem(gone)
    assert upstream.seen(held.project)[-1].headers.get("cache-control") == "no-cache"
    assert stack.withdrawn(held.path).status == 404
    upstream.off()
    assert stack.file(held).status == 404


def test_a_quarantined_project_offers_nothing_and_its_held_files_are_refused(
    stack: Stack, upstream: Upstream, held: Dist
) -> None:
    upstream.set_status(held.project, "quarantined", "looks like malware")
    page = stack.page_once(held.project, lambda page: page.json["files"] == [], "offers nothing").json
    assert page["project-status"] == {"status": "quarantined", "reason": "looks like malware"}
    reply = stack.withdrawn(held.path)
    assert (reply.status, reply.headers["x-matrix-pypi-rule"]) == (403, "R2")
    assert "R2" in problem(reply)
    upstream.off()
    assert stack.file(held).status == 403


def test_a_project_that_is_well_again_is_served_again(stack: Stack, upstream: Upstream, held: Dist) -> None:
    upstream.set_status(held.project, "quarantined")
    stack.page_once(held.project, lambda page: page.json["files"] == [], "offers nothing")
    upstream.set_status(held.project, "active")
    stack.page_once(held.project, lambda page: len(page.json["files"]) == 1, "offers its file again")
    assert stack.everywhere(held.path, lambda reply: reply.status == 200, "serves").body == held.content
