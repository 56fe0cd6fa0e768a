"""Deciding a whole page is deciding each of its files, and the same knowledge is the same revision."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.cooldown import Cooldown, Exemption, Sight
from matrix_pypi_bot.core.decide import decide
from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.evidence import Terms
from matrix_pypi_bot.core.index_document import IndexPage
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import Keyring, PinnedOrg
from matrix_pypi_bot.core.policy import Denial, NameRules, Versions
from matrix_pypi_bot.core.provenance import Finding, Pin, ProvenancePolicy, Provenances
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, PinnedKey
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.ports import Accepted, OverrideRow, ViewRow
from matrix_pypi_bot.services.known import Known, View, orders_of
from matrix_pypi_bot.services.origins import origins_of_files
from matrix_pypi_bot.services.rule import Rulebook
from matrix_pypi_bot.services.stored_page import empty_page, read_page, rebuilt_view, view_of, with_removed
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.bot_world import KEY

MXA = ProjectName("mxa")
FILES = [FileName(f"mxa-{number}.0-py3-none-any.whl") for number in range(4)]
DIGESTS = [Sha256(digit * 64) for digit in "abc"]
digests = st.sampled_from(DIGESTS)
NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
moments = st.integers(NOW_MS - 10_000_000, NOW_MS + 10_000_000)
upload_times = st.none() | moments.map(lambda ms: str(Instant.of_ms(ms))) | st.just("2026-02-31T00:00:00Z")
sights = st.builds(Sight, moments, st.none() | moments)
cooldowns = st.builds(
    Cooldown,
    seconds=st.sampled_from([0, 3_600]),
    exemptions=st.lists(
        st.builds(
            Exemption,
            project=st.just(MXA),
            reason=st.just("good"),
            versions=st.sampled_from([None, Versions.parse("<2")]),
            until_ms=st.none() | moments,
        ),
        max_size=2,
    ).map(tuple),
)


OURS, THEIRS = Publisher("github", "trailofbits/mxa", "x.yml"), Publisher("github", "mallory/mxa", "x.yml")
PIN = Pin(publishers=(OURS,), file=FILES[0], signed=9)
PROVENANCE = ProvenancePolicy(root="a root")
findings = st.sampled_from([Finding(fault="bad"), Finding(unknown="new")]) | st.builds(
    Finding, sha256=digests, publishers=st.sampled_from([(OURS,), (THEIRS,)]), signed=st.just(9)
)


def entry(name: FileName, sha256: Sha256, upload_time: str | None = None) -> IndexFile:
    """A file as a page lists it."""
    return IndexFile(
        name=name,
        sha256=sha256,
        url=f"https://files.example/{name}",
        size=3,
        requires_python=None,
        yanked=False,
        core_metadata=False,
        upload_time=upload_time,
        provenance=None,
        extras={},
    )


def order(action: str, file: FileName | None, sha256: Sha256 | None, at_ms: int) -> OverrideRow:
    """An operator's decision."""
    return OverrideRow(
        statement_id="1" * 64, project=MXA, file=file, action=action, sha256=sha256, reason="because", at_ms=at_ms  # type: ignore[arg-type]
    )  # fmt: skip


@st.composite
def knowledge(draw: st.DrawFn) -> Known:
    """Anything that may be known of a project with up to four files."""
    listed = draw(st.dictionaries(st.sampled_from(FILES), st.tuples(digests, upload_times)))
    status = draw(st.sampled_from(["active", "quarantined"]))
    page: IndexPage = empty_page(MXA)
    page = IndexPage(
        project=MXA,
        files={name: entry(name, *told) for name, told in listed.items()},
        conflicted={},
        dropped={},
        status=status,  # type: ignore[arg-type]
        status_reason=None,
        serial=draw(st.none() | st.integers(0, 9)),
        minor=4,
        versions=None,
        extras={},
    )
    accepted = draw(st.dictionaries(st.sampled_from(FILES), digests))
    orders = draw(
        st.lists(
            st.builds(
                order,
                st.sampled_from(["approve", "quarantine", "release"]),
                st.sampled_from(FILES),
                digests,
                st.integers(0, 9),
            )
            | st.builds(order, st.sampled_from(["quarantine", "release"]), st.none(), st.none(), st.integers(0, 9)),
            max_size=3,
        )
    )
    state = draw(st.sampled_from(["live", "down"]))
    return Known(
        project=MXA,
        view=View(
            state=state,  # type: ignore[arg-type]
            page=page,
            removed={},
            root=DIGESTS[0],
            etag=None,
            fetched_ms=0,
            checked_ms=0,
            opened_origins=(),
        ),
        accepted={
            file: Accepted(project=MXA, file=file, sha256=sha256, size=5, at_ms=5, by="served", serial=None)
            for file, sha256 in accepted.items()
        },
        first_seen=draw(st.dictionaries(st.sampled_from(FILES), digests)),
        sights=draw(st.dictionaries(st.sampled_from(FILES), sights)),
        at_ms=NOW_MS,
        orders=orders_of(orders),
        provenance=Provenances(draw(st.dictionaries(st.sampled_from(FILES), findings)), draw(st.none() | st.just(PIN))),
    )


denials = st.lists(
    st.builds(Denial, file=st.sampled_from(FILES), reason=st.just("bad"))
    | st.builds(Denial, sha256=digests)
    | st.builds(
        Denial,
        project=st.just(MXA),
        versions=st.sampled_from([None, Versions.parse(">=1,<3")]),
        until_ms=st.none() | moments,
    ),
    max_size=2,
)


@given(knowledge(), denials, cooldowns, st.booleans())
def test_deciding_a_page_at_once_is_deciding_each_file(
    known: Known, denied: list[Denial], cooldown: Cooldown, keep: bool
) -> None:
    rulebook = Rulebook(Terms(keep_removed=keep), denied, cooldown=cooldown, provenance=PROVENANCE)
    finished = rulebook.finish(known).finished
    assert known.view is not None
    assert finished is not None
    assert finished.decisions.keys() == known.view.page.files.keys()
    for name, decision in finished.decisions.items():
        evidence, _ = rulebook.evidence(known, name)
        ruling = decide(evidence, rulebook.terms)
        assert (decision.action, decision.http, decision.rule) == (ruling.action, ruling.http, ruling.rule)
        if ruling.sha256 is not None:
            assert finished.files[name].sha256 == ruling.sha256


@given(knowledge(), denials, cooldowns)
def test_nothing_changes_by_time_alone_before_the_moment_that_is_told(
    known: Known, denied: list[Denial], cooldown: Cooldown
) -> None:
    rulebook = Rulebook(Terms(), denied, cooldown=cooldown)

    def at(ms: int) -> Known:
        return rulebook.finish(dataclasses.replace(known, at_ms=ms))

    turn = rulebook.turns_at(at(NOW_MS))
    later = NOW_MS + 100_000_000 if turn is None else turn - 1
    assert turn is None or turn > NOW_MS
    assert at(later).finished == at(NOW_MS).finished
    assert at((NOW_MS + later) // 2).finished == at(NOW_MS).finished


@given(knowledge(), denials)
def test_what_a_page_lists_is_what_was_decided(known: Known, denied: list[Denial]) -> None:
    rulebook = Rulebook(Terms(), denied, provenance=PROVENANCE)
    finished = rulebook.finish(known).finished
    assert finished is not None
    document = json.loads(finished.body)
    for file in document["files"]:
        decision = finished.decisions[file["filename"]]
        assert file["_decision"]["rule"] == decision.rule
        assert bool(file.get("yanked")) == (not decision.serves)
        assert file["hashes"]["sha256"] == finished.files[file["filename"]].sha256
    assert rulebook.finish(known).finished == finished


@given(st.lists(st.tuples(st.sampled_from(FILES), digests), unique_by=lambda pair: pair[0], min_size=1))
def test_removed_files_come_back_from_the_database_as_they_were(kept: list[tuple[FileName, Sha256]]) -> None:
    removed = {name: entry(name, sha256) for name, sha256 in kept}
    page = json.dumps({"meta": {"api-version": "1.4"}, "name": "mxa", "files": [], "x": 1.5}).encode()
    for raw in (b"", page):
        row = ViewRow(
            project=MXA,
            upstream="pypi",
            state="live",
            etag=None,
            serial=None,
            fetched_ms=0,
            checked_ms=0,
            raw=with_removed(raw, removed),
            opened_origins=(),
        )
        view = view_of(row, base_url="https://index.example/simple/mxa/")
        assert (view.removed, dict(view.page.files)) == (removed, {})
        assert "_removed" not in view.page.extras


def test_upstream_cannot_speak_of_removed_files_itself() -> None:
    raw = b'{"meta": {"api-version": "1.4"}, "name": "mxa", "files": [], "_removed": [], "kept": 1}'
    assert read_page(raw, MXA, base_url="https://index.example/").extras == {"kept": 1}


def test_any_other_policy_has_another_fingerprint() -> None:
    until = 1_767_225_600_000
    policies = [
        Rulebook(Terms()),
        Rulebook(Terms(keep_removed=True)),
        Rulebook(Terms(), [Denial(project=MXA)]),
        Rulebook(Terms(), [Denial(project=MXA, until_ms=until)]),
        Rulebook(Terms(), [Denial(project=MXA, versions=Versions.parse("<2"))]),
        Rulebook(Terms(), names=NameRules(reserved=("mxa",))),
        Rulebook(Terms(), names=NameRules(allow_only=("mxa",))),
        Rulebook(Terms(), cooldown=Cooldown(seconds=1)),
        Rulebook(Terms(), cooldown=Cooldown(seconds=1, exemptions=(Exemption(project=MXA, reason="r"),))),
        Rulebook(
            Terms(), cooldown=Cooldown(seconds=1, exemptions=(Exemption(project=MXA, reason="r", until_ms=until),))
        ),
    ]
    assert len({one.fingerprint for one in policies}) == len(policies)
    assert [one.house.ended(until) - one.house.ended(until - 1) for one in policies] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]


def test_offline_a_file_that_only_others_name_waits_too_and_no_longer_than_from_the_first_statement_on_it() -> None:
    told = Instant.of_ms(NOW_MS - 1_800_000)
    claim = Claim(
        statement_id=StatementId("1" * 64),
        kind="attestation",
        file=FILES[1],
        subject=DIGESTS[0],
        org="orgb",
        keyid=KEY.keyid,
        index="pypi",
        word="bytes",
        received_ms=NOW_MS - 600_000,
        upload_time=str(told),
    )
    keyring = SimpleNamespace(
        keys={KEY.keyid: PinnedKey(public=KEY.public, org="orgb", roles=frozenset({MIRROR}))},
        counts=lambda *_, **_and: True,
    )
    pinned = PinnedOrg(name="orgb", roots=(), threshold=1, roles=frozenset({MIRROR, WATCHER}))
    standing = Standing(keyring=cast(Keyring, keyring), own="orga", pinned=(pinned,))
    rulebook = Rulebook(Terms(), cooldown=Cooldown(seconds=3_600), standing=lambda: standing)

    def decided(upload_time: str | None, at_ms: int = NOW_MS) -> tuple[Known, str, str]:
        claims = (msgspec.structs.replace(claim, upload_time=upload_time),)
        known = rulebook.finish(Known(project=MXA, view=rebuilt_view(MXA), claims=claims, at_ms=at_ms))
        assert known.finished is not None
        decision = known.finished.decisions[FILES[1]]
        return known, decision.rule, decision.reason

    known, rule, reason = decided(str(told))
    assert (rule, reason) == ("R7", "matrix-pypi: R7 younger than the cooldown (until 2026-01-01T00:30:00Z)")
    assert rulebook.turns_at(known) == NOW_MS + 1_800_000
    assert decided(str(told), NOW_MS + 1_800_000)[1] == "R19"
    known, rule, reason = decided(None)
    assert (rule, "first seen" in reason, rulebook.turns_at(known)) == ("R7", True, NOW_MS + 3_000_000)


def test_the_last_word_of_an_operator_counts() -> None:
    one, two = FILES[:2]
    orders = orders_of(
        [
            order("quarantine", one, None, 1),
            order("approve", one, DIGESTS[0], 2),
            order("quarantine", two, None, 3),
            order("release", two, None, 4),
            order("quarantine", None, None, 5),
        ]
    )
    assert orders.files.keys() == {one}
    assert orders.approvals().keys() == {one}
    assert orders.quarantine(two) is orders.project
    assert orders_of([order("quarantine", None, None, 1), order("release", None, None, 2)]).project is None


def test_origins_of_files_are_those_of_their_addresses_alone() -> None:
    urls = [
        "http://10.0.0.1:81/packages/a",
        "https://Files.Example/x",
        "https://[::1]:8443/x",
        "https://[::1]/x",
        "http://files.example:99999/x",
        "http://[::1/x",
        "https://files.example:443/y",
    ]
    files = {
        FileName(f"mxa-{n}.0-py3-none-any.whl"): msgspec.structs.replace(entry(FILES[0], DIGESTS[0]), url=url)
        for n, url in enumerate(urls)
    }
    page = dataclasses.replace(empty_page(MXA), files=files)
    assert origins_of_files(page) == {
        "http://10.0.0.1:81",
        "https://files.example:443",
        "https://[::1]:8443",
        "https://[::1]:443",
    }
