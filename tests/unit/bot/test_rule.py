"""Deciding a whole page is deciding each of its files, and the same knowledge is the same revision."""

from __future__ import annotations

import dataclasses
import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.decide import decide
from matrix_pypi_bot.core.evidence import Terms
from matrix_pypi_bot.core.index_document import IndexPage
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.policy import Denial
from matrix_pypi_bot.ports import Accepted, OverrideRow, ViewRow
from matrix_pypi_bot.services.known import Known, View, orders_of
from matrix_pypi_bot.services.origins import origins_of_files
from matrix_pypi_bot.services.rule import Rulebook
from matrix_pypi_bot.services.stored_page import empty_page, read_page, view_of, with_removed
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

MXA = ProjectName("mxa")
FILES = [FileName(f"mxa-{number}.0-py3-none-any.whl") for number in range(4)]
DIGESTS = [Sha256(digit * 64) for digit in "abc"]
digests = st.sampled_from(DIGESTS)


def entry(name: FileName, sha256: Sha256) -> IndexFile:
    """A file as a page lists it."""
    return IndexFile(
        name=name,
        sha256=sha256,
        url=f"https://files.example/{name}",
        size=3,
        requires_python=None,
        yanked=False,
        core_metadata=False,
        upload_time=None,
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
    listed = draw(st.dictionaries(st.sampled_from(FILES), digests))
    status = draw(st.sampled_from(["active", "quarantined"]))
    page: IndexPage = empty_page(MXA)
    page = IndexPage(
        project=MXA,
        files={name: entry(name, sha256) for name, sha256 in listed.items()},
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
        orders=orders_of(orders),
    )


denials = st.lists(
    st.builds(Denial, file=st.sampled_from(FILES), reason=st.just("bad")) | st.builds(Denial, sha256=digests),
    max_size=2,
)


@given(knowledge(), denials, st.booleans())
def test_deciding_a_page_at_once_is_deciding_each_file(known: Known, denied: list[Denial], keep: bool) -> None:
    rulebook = Rulebook(Terms(keep_removed=keep), denied)
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


@given(knowledge(), denials)
def test_what_a_page_lists_is_what_was_decided(known: Known, denied: list[Denial]) -> None:
    rulebook = Rulebook(Terms(), denied)
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
