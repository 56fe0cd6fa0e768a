"""The finished page: every file with its decision, and nothing that installers could misread."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from pypi_simple import ProjectPage

from matrix_pypi_bot.core.annotate import annotate
from matrix_pypi_bot.core.decide import Rule, Ruling
from matrix_pypi_bot.core.index_document import IndexPage, parse_page
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import FileDecision, PageFile
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.unit.bot.test_index_document import BASE, PROJECT, UPLOADED, A, B, entry, page

WHEELS = [f"my_pkg-{number}.0-py3-none-any.whl" for number in range(1, 6)]
SERVED = Ruling(action="serve+attest", rule=Rule.R8, http=200, sha256=Sha256(A)).told()
QUARANTINED = Ruling(action="quarantine", rule=Rule.R3, http=403).told()
COOLING = Ruling(action="refuse", rule=Rule.R7, http=403).told()
AWAY = Ruling(action="unavailable", rule=Rule.R17, http=503).told()
KEPT = Ruling(action="serve", rule=Rule.R9, http=200, sha256=Sha256(A)).told()


def read(*entries: dict[str, Any], **changes: Any) -> IndexPage:
    return parse_page(json.dumps(page(*entries, **changes)).encode(), PROJECT, base_url=BASE)


def finished(*entries: dict[str, Any], decision: FileDecision = SERVED, **changes: Any) -> dict[str, Any]:
    """The document as it travels."""
    found = read(*entries, **changes)
    document: dict[str, Any] = msgspec.json.decode(annotate(found, dict.fromkeys(found.files, decision)).body)
    return document


def test_a_page_is_finished_whole() -> None:
    document = finished(
        entry(
            filename=WHEELS[0],
            url=f"https://files.example/{WHEELS[0]}",
            requires_python=">=3.8",
            upload_time=UPLOADED,
            core_metadata={"sha256": B},
            provenance="https://index.example/p",
            yanked="old",
            _x=1,
        ),
        **{
            "meta": {"api-version": "1.4", "_last-serial": 7},
            "versions": ["1.0"],
            "project-status": {"status": "archived", "reason": "done"},
            "_y": [2],
        },
    )
    path = f"/packages/aa/aa/{'a' * 60}/{WHEELS[0]}"
    assert document == {
        "meta": {"api-version": "1.4", "_last-serial": 7},
        "name": "my-pkg",
        "versions": ["1.0"],
        "project-status": {"status": "archived", "reason": "done"},
        "_y": [2],
        "files": [
            {
                "filename": WHEELS[0],
                "url": f"../..{path}",
                "hashes": {"sha256": A},
                "size": 5,
                "requires-python": ">=3.8",
                "upload-time": UPLOADED,
                "core-metadata": {"sha256": B},
                "provenance": "https://index.example/p",
                "yanked": "old",
                "_x": 1,
                "_path": path,
                "_url": f"https://files.example/{WHEELS[0]}",
                "_decision": {"action": "serve+attest", "http": 200, "rule": "R8", "reason": ""},
            }
        ],
    }
    assert msgspec.convert(document["files"][0], PageFile).decision == SERVED


def test_each_decision_shows_on_its_file() -> None:
    found = read(*(entry(filename=name) for name in WHEELS), versions=[f"{number}.0" for number in range(1, 6)])
    decisions = dict(zip(found.files, (SERVED, QUARANTINED, COOLING, AWAY, KEPT), strict=True))
    document: dict[str, Any] = msgspec.json.decode(annotate(found, decisions).body)
    assert {file["filename"]: file.get("yanked") for file in document["files"]} == {
        WHEELS[0]: None,
        WHEELS[1]: "matrix-pypi: R3 the digest changed upstream",
        WHEELS[3]: "matrix-pypi: R17 upstream is away and this file was never verified here",
        WHEELS[4]: None,
    }
    assert len(document["versions"]) == 5  # also that of the file in its cooldown


def test_a_refusal_outweighs_upstreams_own_yank() -> None:
    [file] = finished(entry(yanked="old"), decision=QUARANTINED)["files"]
    assert file["yanked"] == "matrix-pypi: R3 the digest changed upstream"


def test_a_quarantined_project_lists_nothing_and_says_why() -> None:
    document = finished(entry(), **{"project-status": {"status": "quarantined", "reason": "malware"}})
    assert (document["files"], document["project-status"]) == ([], {"status": "quarantined", "reason": "malware"})


def test_a_status_without_a_reason_has_none() -> None:
    document = finished(**{"project-status": {"status": "deprecated"}})
    assert document["project-status"] == {"status": "deprecated"}


def test_a_plain_page_claims_no_more_than_it_holds() -> None:
    assert finished(entry(size=..., core_metadata=True), meta={"api-version": "1.0"}) == {
        "meta": {"api-version": "1.0"},
        "name": "my-pkg",
        "files": [
            {
                "filename": "My_Pkg-1.0-py3-none-any.whl",
                "url": f"../../packages/aa/aa/{'a' * 60}/My_Pkg-1.0-py3-none-any.whl",
                "hashes": {"sha256": A},
                "core-metadata": True,
                "_path": f"/packages/aa/aa/{'a' * 60}/My_Pkg-1.0-py3-none-any.whl",
                "_url": "https://files.example/My_Pkg-1.0-py3-none-any.whl",
                "_decision": {"action": "serve+attest", "http": 200, "rule": "R8", "reason": ""},
            }
        ],
    }


def test_no_upstream_speaks_for_us() -> None:
    forged = {"_decision": {"action": "serve"}, "_path": "/etc/passwd", "_url": "file:///"}
    [file] = finished(entry() | forged, decision=QUARANTINED, _view={"state": "live"})["files"]
    assert (file["_decision"]["rule"], file["_path"][:10]) == ("R3", "/packages/")
    assert "_view" not in finished(_view={"state": "live"})


def test_a_revision_follows_the_content_and_nothing_else() -> None:
    found, name = read(entry()), FileName("My_Pkg-1.0-py3-none-any.whl")
    first = annotate(found, {name: SERVED})
    assert annotate(read(entry()), {name: SERVED}) == first
    assert len(first.revision) == 32
    others = [annotate(found, {name: KEPT}), annotate(read(entry(size=6)), {name: SERVED}), annotate(read(), {})]
    assert len({first.revision, *(other.revision for other in others)}) == 4


def test_an_independent_reader_finds_the_same_files() -> None:
    document = finished(entry(filename=WHEELS[0], yanked="old", requires_python=">=3.8"), entry(filename=WHEELS[1]))
    theirs = ProjectPage.from_json_data(document, base_url=BASE)
    assert theirs.project == ProjectName("my-pkg")
    assert [(p.filename, p.digests, p.is_yanked, p.requires_python, p.size) for p in theirs.packages] == [
        (WHEELS[0], {"sha256": A}, True, ">=3.8", 5),
        (WHEELS[1], {"sha256": A}, False, None, 5),
    ]
    assert theirs.packages[0].url == f"https://index.example/packages/aa/aa/{'a' * 60}/{WHEELS[0]}"
