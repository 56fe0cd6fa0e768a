"""From the bot's word on a file to what is done about a request for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.serve_plan import Deny, Describe, Fetch, FromStore, Later, Wanted, judge, plan
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Decision
from matrix_pypi_bot.wire.names import ProjectName

DIGEST, METADATA_DIGEST = Sha256("ab" * 32), Sha256("cd" * 32)
FILE = "flask-3.0-py3-none-any.whl"
URL = f"https://files.example/packages/aa/{FILE}"
SERVE = Decision(
    action="serve+attest",
    http=200,
    rule="R8",
    project="flask",
    file=FILE,
    path=f"/packages/aa/bb/{'0' * 60}/{FILE}",
    sha256=DIGEST,
    size=1000,
    core_metadata_sha256=METADATA_DIGEST,
    urls=(f"{URL}?a=1#sha256={DIGEST}", "https://other.example/flask.whl"),
    opened_origins=("http://127.0.0.1:8000",),
)
WANTED = Wanted(
    sha256=DIGEST,
    size=1000,
    urls=SERVE.urls,
    opened_origins=frozenset(SERVE.opened_origins),
    project=ProjectName("flask"),
    name=FILE,
    max_bytes=5000,
    rule="R8",
)


def but(**changes: Any) -> Decision:
    return msgspec.structs.replace(SERVE, **changes)


@pytest.mark.parametrize(
    ("told", "status"),
    [("active", ""), ("archived", "archived"), ("deprecated", "deprecated"), ("quarantined", ""), ("x\r\n", "")],
)
def test_only_what_is_worth_telling_of_a_project_goes_with_its_files(told: str, status: str) -> None:
    wanted = judge(but(project_status=told), metadata=False, max_file_bytes=5000)
    assert isinstance(wanted, Wanted)
    assert wanted.status == status


def refused(**changes: Any) -> Decision:
    return but(**({"sha256": None, "size": None, "urls": ()} | changes))


def word(decision: Decision, *, metadata: bool = False) -> Wanted | Deny | Later:
    return judge(decision, metadata=metadata, max_file_bytes=5000)


def test_a_file_that_serves_is_wanted_by_its_digest() -> None:
    assert word(SERVE) == WANTED


def test_its_metadata_is_wanted_by_the_digest_advertised_and_may_come_out_of_the_wheel() -> None:
    assert word(SERVE, metadata=True) == dataclasses.replace(
        WANTED,
        sha256=METADATA_DIGEST,
        size=None,
        urls=(f"{URL}.metadata", "https://other.example/flask.whl.metadata"),
        name=f"{FILE}.metadata",
        wheel=DIGEST,
    )


def test_metadata_that_nobody_advertises_is_not_there() -> None:
    assert word(but(core_metadata_sha256=None), metadata=True) == Deny(
        status=404, rule="R8", reason=f"matrix-pypi: {FILE} has no metadata of its own"
    )


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (
            refused(action="refuse", http=403, rule="R3", reason="matrix-pypi: R3 the digest changed upstream"),
            Deny(status=403, rule="R3", reason="matrix-pypi: R3 the digest changed upstream"),
        ),
        (
            refused(action="refuse", http=404, rule="R10", reason="matrix-pypi: R10 removed upstream"),
            Deny(status=404, rule="R10", reason="matrix-pypi: R10 removed upstream"),
        ),
        (
            refused(action="quarantine", http=403, rule="R4", reason="matrix-pypi: R4 mirrors disagree"),
            Deny(status=403, rule="R4", reason="matrix-pypi: R4 mirrors disagree"),
        ),
        (
            refused(action="unavailable", http=503, rule="R18", reason="matrix-pypi: R18 one attestation is missing"),
            Later(rule="R18", reason="matrix-pypi: R18 one attestation is missing"),
        ),
        (
            refused(action="contested", http=503, rule="R14", reason="R14 contested"),
            Later(rule="R14", reason="matrix-pypi: R14 contested"),
        ),
        (refused(action="quarantine", http=200, rule="R6"), Deny(status=403, rule="R6", reason=f"matrix-pypi: R6 quarantine: {FILE}")),
    ],
    ids=lambda value: getattr(value, "rule", None),
)  # fmt: skip
def test_a_refusal_keeps_its_rule_and_reason_and_has_the_status_of_a_file(
    decision: Decision, expected: Deny | Later
) -> None:
    assert word(decision) == expected
    assert word(decision, metadata=True) == expected


@given(st.text(max_size=400))
def test_a_reason_from_outside_is_one_printable_line(reason: str) -> None:
    denied = word(refused(action="refuse", http=403, rule="R1", reason=reason))
    assert isinstance(denied, Deny)
    assert denied.reason.isascii()
    assert denied.reason.isprintable()
    assert denied.reason.startswith("matrix-pypi:")
    assert len(denied.reason) <= 300


@pytest.mark.parametrize("digest", [None, "", "AB" * 32, "../" * 21, "ab" * 31])
def test_a_digest_that_is_none_never_reaches_the_store(digest: str | None) -> None:
    assert word(but(sha256=digest)) == Later(rule="R8", reason=f"matrix-pypi: {FILE}: the bot named no digest")


def test_what_is_here_comes_from_the_store() -> None:
    assert plan(WANTED, held=True, head=False, whole_first=True) == FromStore(WANTED)


def test_a_large_file_that_is_here_is_served_and_one_that_is_not_is_not_fetched() -> None:
    large = dataclasses.replace(WANTED, size=5001)
    assert plan(large, held=True, head=False, whole_first=False) == FromStore(large)
    assert plan(large, held=False, head=True, whole_first=False) == Deny(
        status=403,
        rule="R8",
        reason=f"matrix-pypi: {FILE} has 5001 bytes; 5000 are the most that is fetched here",
    )


def test_a_head_of_known_size_fetches_nothing_and_one_of_unknown_size_must() -> None:
    unknown = dataclasses.replace(WANTED, size=None)
    assert plan(WANTED, held=False, head=True, whole_first=False) == Describe(WANTED, 1000)
    assert plan(unknown, held=False, head=True, whole_first=False) == Fetch(unknown, whole_first=False)


@pytest.mark.parametrize("whole_first", [True, False])
def test_what_is_not_here_is_fetched(whole_first: bool) -> None:
    assert plan(WANTED, held=False, head=False, whole_first=whole_first) == Fetch(WANTED, whole_first)
