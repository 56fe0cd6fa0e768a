"""Events and the eight kinds of statements: the ordered check, and our own events passing it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from matrix_pypi_bot.core.events import (
    HEAD_EVENT_TYPE,
    OWNED,
    Post,
    StatementTooLarge,
    check_envelope,
    check_event,
    head_post,
    post_of,
    read_head,
    sign_statement,
)
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements import EVENT_KINDS, KINDS, write_statement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import Predicate
from matrix_pypi_bot.core.statements.refutation import Fault
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.plain_statements import (
    EVIL,
    FALSE,
    GENUINE,
    KEYS,
    MAINT,
    NOW,
    ORGA,
    ORGB,
    ORGC,
    PROJECT,
    RAW_CID,
    ROOTA,
    ROOTA2,
    ROOTB,
    WHEEL,
    Json,
    attestation,
    chain,
    envelope_of,
    event_of,
    id_of,
    listed_key,
    manifest,
    name_digest,
    payload_of,
    refutation,
    statement,
)

ROOM = ProjectName(PROJECT)
LATER = str(Instant(NOW + 3600))
REVIEW = {**chain(), "project": PROJECT, "index": "pypi", "verdicts": ["ok"]}
WITHDRAWAL = {**chain(), "project": PROJECT, "version": "0.1.2", "file": WHEEL, "reason": "error", "scope": "file"}
VIEW = {
    **chain(),
    "project": PROJECT,
    "index": "pypi",
    "serial": None,
    "status": "active",
    "count": 0,
    "expires": LATER,
}
OVERRIDE = {
    **chain(),
    "action": "approve",
    "scope": "file",
    "project": PROJECT,
    "file": WHEEL,
    "index": "pypi",
    "reason": "checked by hand",
    "expires": None,
}
ANNOUNCEMENT = {
    **chain(),
    "user": "@pypi:orga.example",
    "gateway": None,
    "log": {"url": "https://orga.example/log/v1/", "origin": "orga/matrix-pypi"},
    "kubo": None,
    "profile": "unixfs-v1-2025",
    "expires": LATER,
}
ACCUSED = envelope_of(attestation())
EVIDENCE: Json = {"envelopes": [ACCUSED, envelope_of(attestation(sha256=FALSE))]}
REFUTATION = refutation("equivocation", ("attestation", id_of(attestation())), EVIDENCE)
ID = "ab" * 32
WHOLE_PROJECT: Json = {"scope": "project", "file": None, "action": "quarantine"}


def all_kinds() -> dict[str, Json]:
    """One good statement of each kind, fresh for every test."""
    return copy.deepcopy(KINDS_OF_STATEMENTS)


KINDS_OF_STATEMENTS: dict[str, Json] = {
    "attestation": attestation(
        cid=RAW_CID, coreMetadata={"sha256": FALSE}, ext={"yanked": False, "requiresPython": ">=3.8"}
    ),
    "review": statement("review", WHEEL, GENUINE, {**REVIEW, "observed": [None], "serial": 3}),
    "withdrawal": statement("withdrawal", "attestation", ID, WITHDRAWAL),
    "refutation": REFUTATION,
    "index": statement("index", PROJECT, GENUINE, {**VIEW, "listCid": RAW_CID}),
    "keys": manifest(delegations=[{"project": PROJECT, "key": MAINT.public.hex()}]),
    "override": statement("override", WHEEL, GENUINE, OVERRIDE),
    "announcement": statement("announcement", "orga", name_digest("orga"), ANNOUNCEMENT),
}


SIGNERS = {"refutation": ORGB, "keys": ROOTA}
ROOMS: dict[str, ProjectName | None] = {"keys": None, "announcement": None}


def code_of(envelope: Json, kind: type[Predicate] | None = None) -> Code:
    with pytest.raises(Rejected) as caught:
        check_envelope(envelope, KEYS, kind)
    return caught.value.code


def event_code(event: object, room: ProjectName | None = ROOM) -> Code:
    with pytest.raises(Rejected) as caught:
        check_event(event, room, KEYS)
    return caught.value.code


@pytest.mark.parametrize("kind", all_kinds())
def test_a_good_statement_of_each_kind_counts_and_is_written_back_to_the_byte(kind: str) -> None:
    value, signer = all_kinds()[kind], SIGNERS.get(kind, ORGA)
    struct = KINDS[f"urn:matrix-pypi:{kind}:v1"]
    checked = check_envelope(envelope_of(value, signer), KEYS, struct)
    told = checked.statement
    assert (told.id, checked.key.public, struct.event_type()) == (
        id_of(value),
        signer.public,
        f"io.matrix_pypi.{kind}.v1",
    )
    assert write_statement({s.name: s.sha256 for s in told.subjects}, told.predicate) == payload_of(value)


@pytest.mark.parametrize("kind", [name.removeprefix("io.matrix_pypi.").removesuffix(".v1") for name in EVENT_KINDS])
def test_an_event_of_ours_passes_the_check_it_is_made_for(kind: str) -> None:
    signer = SIGNERS.get(kind, ORGA)
    checked = check_envelope(envelope_of(all_kinds()[kind], signer), KEYS, KINDS[f"urn:matrix-pypi:{kind}:v1"])
    relates = {"rel_type": "m.thread", "event_id": "$accused"} if kind == "refutation" else None
    post = post_of(checked, relates_to=relates)
    event: Json = {"type": post.type, "sender": "@pypi:orga.example", "content": post.content}
    if post.state_key is not None:
        event["state_key"] = "@pypi:orga.example" if post.state_key == OWNED else post.state_key
    assert check_event(event, ROOMS.get(kind, ROOM), KEYS) == checked


@pytest.mark.parametrize("missing", ["org", "key"])
@pytest.mark.parametrize("kind", ["attestation", "review", "withdrawal", "index", "override", "announcement"])
def test_a_statement_names_the_signer_who_signed_it(kind: str, missing: str) -> None:
    value = all_kinds()[kind]
    value["predicate"]["signer"] = {"org": "orga", "key": ORGA.keyid} | {missing: ORGB.keyid}
    if kind == "announcement" and missing == "org":
        value["subject"] = statement("", ORGB.keyid, name_digest(ORGB.keyid), {})["subject"]
    assert code_of(envelope_of(value)) is Code.SIGNER_MISMATCH


@pytest.mark.parametrize(
    ("kind", "signer", "org"),
    [
        ("attestation", ORGC, "orgc"),  # a watcher only
        ("withdrawal", ORGC, "orgc"),
        ("override", ORGC, "orgc"),
        ("override", MAINT, "maint"),
        ("review", MAINT, "maint"),
        ("attestation", ROOTA, "orga"),  # roots sign manifests alone
        ("index", MAINT, "maint"),
    ],
)
def test_a_key_signs_what_its_role_allows(kind: str, signer: Any, org: str) -> None:
    value = all_kinds()[kind]
    value["predicate"]["signer"] = {"org": org, "key": signer.keyid}
    assert code_of(envelope_of(value, signer)) is Code.ROLE


def test_a_watcher_reviews() -> None:
    value = statement("review", WHEEL, GENUINE, REVIEW | {"signer": {"org": "orgc", "key": ORGC.keyid}})
    assert check_envelope(envelope_of(value, ORGC), KEYS).key.org == "orgc"


FAULTS: list[tuple[str, Json, Code]] = [
    ("attestation", {"issued": "2026-13-01T00:00:00Z"}, Code.FIELDS),
    ("attestation", {"issued": "2026-02-30T00:00:00Z"}, Code.FIELDS),
    ("attestation", {"issued": "2026-11-22T13:00:00+00:00"}, Code.FIELDS),
    ("attestation", {"issued": 5}, Code.FIELDS),
    ("attestation", {"expires": "soon"}, Code.FIELDS),
    ("attestation", {"prev": "x"}, Code.FIELDS),
    ("attestation", {"size": 0}, Code.FIELDS),
    ("attestation", {"size": 5 * 2**30 + 1}, Code.FIELDS),
    ("attestation", {"coreMetadata": None}, Code.FIELDS),
    ("attestation", {"coreMetadata": {"sha256": "x"}}, Code.FIELDS),
    ("attestation", {"ext": None}, Code.FIELDS),
    ("attestation", {"cid": 5}, Code.CID),
    ("attestation", {"cid": {}}, Code.CID),
    ("attestation", {"project": "RFC8785"}, Code.NAME_MISMATCH),
    ("attestation", {"version": "0.1.02"}, Code.NAME_MISMATCH),
    (
        "attestation",
        {"source": {"kind": "pypi", "method": "bytes", "uploadTime": "yesterday"}},
        Code.FIELDS,
    ),
    ("review", {"verdicts": []}, Code.FIELDS),
    ("review", {"verdicts": ["ok", "ok"]}, Code.FIELDS),
    ("review", {"verdicts": ["fine"]}, Code.FIELDS),
    ("review", {"observed": []}, Code.FIELDS),
    ("review", {"project": "other"}, Code.NAME_MISMATCH),
    ("withdrawal", {"reason": "mood"}, Code.FIELDS),
    ("withdrawal", {"file": "../x"}, Code.FILENAME),
    ("withdrawal", {"file": "a-x.zip"}, Code.FILENAME),
    ("withdrawal", {"version": "9"}, Code.NAME_MISMATCH),
    ("index", {"project": "RFC8785"}, Code.FIELDS),
    ("index", {"project": "other"}, Code.NAME_MISMATCH),
    ("index", {"expires": str(NOW)}, Code.FIELDS),
    ("index", {"expires": str(Instant(NOW + 72 * 3600 + 1))}, Code.FIELDS),
    ("keys", {"expires": str(Instant(NOW + 90 * 86_400 + 1))}, Code.FIELDS),
    ("keys", {"threshold": 2}, Code.FIELDS),
    ("keys", {"keys": [listed_key(ORGA), listed_key(ORGA)]}, Code.FIELDS),
    ("keys", {"keys": [listed_key(ROOTA)]}, Code.FIELDS),
    ("keys", {"keys": [listed_key(ORGA, "root")]}, Code.FIELDS),
    ("keys", {"keys": [listed_key(ORGA, revoked={"at": str(NOW), "reason": "x"})]}, Code.FIELDS),
    ("keys", {"delegations": [{"project": "RFC8785", "key": ID}]}, Code.FIELDS),
    ("keys", {"org": "orgb"}, Code.SUBJECT),
    ("override", {"scope": "project"}, Code.FIELDS),
    ("override", {"scope": "project", "file": None}, Code.FIELDS),
    ("override", WHOLE_PROJECT, Code.SUBJECT),
    ("override", {"file": "a/b"}, Code.FILENAME),
    ("override", {"file": "other-1.0.egg"}, Code.NAME_MISMATCH),
    ("override", {"project": "RFC8785"}, Code.FIELDS),
    ("override", {"reason": "x" * 501}, Code.FIELDS),
    ("announcement", {"user": "pypi:orga.example"}, Code.FIELDS),
    ("announcement", {"user": "@a b:c"}, Code.FIELDS),
    ("announcement", {"profile": "unixfs-v0-2015"}, Code.FIELDS),
    ("refutation", {"class": "mood"}, Code.FIELDS),
    ("refutation", {"class": "log-fork"}, Code.FIELDS),
    ("refutation", {"class": "pypi-absent"}, Code.FIELDS),
    ("refutation", {"evidence": {}}, Code.FIELDS),
    ("refutation", {"evidence": {"envelopes": []}}, Code.FIELDS),
    ("refutation", {"project": None}, Code.FIELDS),
    ("refutation", {"file": None, "project": None}, Code.FIELDS),
    ("refutation", {"project": "other"}, Code.NAME_MISMATCH),
    ("refutation", {"reporter": {"org": "orga", "key": ORGB.keyid}}, Code.SIGNER_MISMATCH),
]


@pytest.mark.parametrize(("kind", "changes", "code"), FAULTS, ids=lambda part: str(part)[:50])
def test_a_wrong_field_gets_its_code(kind: str, changes: Json, code: Code) -> None:
    value = copy.deepcopy(all_kinds()[kind])
    value["predicate"] |= changes
    signer = SIGNERS.get(kind, ORGA)
    assert code_of(envelope_of(value, signer), KINDS[f"urn:matrix-pypi:{kind}:v1"]) is code


@pytest.mark.parametrize("kind", all_kinds())
def test_a_field_nobody_knows_or_one_that_is_missing_is_refused(kind: str) -> None:
    signer, struct = SIGNERS.get(kind, ORGA), KINDS[f"urn:matrix-pypi:{kind}:v1"]
    optional = {"cid", "coreMetadata", "ext", "observed", "serial", "listCid"} - (
        {"serial"} if kind == "index" else set()
    )
    for name in {*all_kinds()[kind]["predicate"]} - optional:
        value = copy.deepcopy(all_kinds()[kind])
        del value["predicate"][name]
        assert code_of(envelope_of(value, signer), struct) is Code.FIELDS, name
    value = copy.deepcopy(all_kinds()[kind])
    value["predicate"]["surprise"] = 1
    assert code_of(envelope_of(value, signer), struct) is Code.FIELDS


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("withdrawal", {"name": "statement", "digest": {"sha256": ID}}),
        ("refutation", {"name": "log", "digest": {"sha256": ID}}),
        ("announcement", {"name": "orgb", "digest": {"sha256": name_digest("orgb")}}),
        ("announcement", {"name": "orga", "digest": {"sha256": ID}}),
        ("attestation", {"name": WHEEL, "digest": {"sha256": ID, "md5": "x"}}),
        ("attestation", {"name": WHEEL, "digest": {"sha256": ID}, "uri": "x"}),
        ("attestation", {"name": 1, "digest": {"sha256": ID}}),
        ("attestation", None),
    ],
)
def test_a_wrong_subject_is_told(kind: str, subject: object) -> None:
    value = all_kinds()[kind] | {"subject": [subject]}
    assert code_of(envelope_of(value, SIGNERS.get(kind, ORGA))) is Code.SUBJECT


def test_only_a_review_has_many_subjects_and_at_most_a_hundred() -> None:
    subjects = [{"name": f"rfc8785-{n}.zip", "digest": {"sha256": GENUINE}} for n in range(101)]
    value = statement("review", WHEEL, GENUINE, REVIEW | {"verdicts": ["unknown"] * 100}) | {"subject": subjects[:100]}
    assert len(check_envelope(envelope_of(value), KEYS).statement.subjects) == 100
    assert code_of(envelope_of(value | {"subject": subjects})) is Code.SUBJECT
    assert code_of(envelope_of(value | {"subject": []})) is Code.SUBJECT


@pytest.mark.parametrize(
    "value",
    [
        [],
        attestation() | {"_type": "https://in-toto.io/Statement/v2"},
        attestation() | {"predicateType": "urn:matrix-pypi:attestation:v2"},
        attestation() | {"predicateType": ["urn:matrix-pypi:attestation:v1"]},
        {"_type": "https://in-toto.io/Statement/v1"},
    ],
)
def test_another_kind_of_document_is_told(value: Any) -> None:
    assert code_of(envelope_of(payload_of(value))) is Code.TYPE


def test_a_statement_has_no_field_beside_its_four() -> None:
    assert code_of(envelope_of(attestation() | {"extra": 1})) is Code.FIELDS
    without = attestation()
    del without["predicate"]
    assert code_of(envelope_of(without)) is Code.FIELDS


def test_an_override_may_be_about_a_whole_project() -> None:
    value = statement("override", PROJECT, name_digest(PROJECT), OVERRIDE | WHOLE_PROJECT)
    assert check_envelope(envelope_of(value), KEYS).statement.subject.name == PROJECT


@pytest.mark.parametrize(
    ("fault", "evidence"),
    [
        (Fault.CID_RAW, {"envelopes": [ACCUSED]}),
        (Fault.REVOKED_KEY, {"envelopes": [ACCUSED], "manifest": ACCUSED}),
        (Fault.PROVENANCE, {"envelopes": [ACCUSED], "bundleCid": RAW_CID}),
        (Fault.PROVENANCE, {"envelopes": [ACCUSED], "bundle": {}}),
        (Fault.PYPI_DIGEST, {"envelopes": [ACCUSED], "sha256": FALSE, "at": str(NOW), "serial": 1}),
        (Fault.CID_CONTENT, {"envelopes": [ACCUSED], "size": 1}),
        (Fault.PYPI_ABSENT, {"envelopes": [ACCUSED], "at": str(NOW)}),
    ],
)
def test_each_fault_has_its_evidence(fault: Fault, evidence: Json) -> None:
    value = refutation(fault, ("attestation", ID), evidence)
    assert check_envelope(envelope_of(value, ORGB), KEYS).statement.predicate.about_project() == PROJECT


def test_a_fork_is_no_projects_affair() -> None:
    value = refutation("log-fork", ("log", ID), {"notes": ["a", "b"]}, project=None, file=None)
    event = event_of(envelope_of(value, ORGB), kind="refutation")
    del event["state_key"]
    assert check_event(event, None, KEYS).statement.predicate.about_project() is None


# ---- events -----------------------------------------------------------------------------------------------------------

GOOD = event_of(ACCUSED)
HINT = {"file": WHEEL, "org": "orga", "sha256": GENUINE, "size": 9172}


def with_content(**parts: object) -> Json:
    return GOOD | {"content": GOOD["content"] | parts}


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (None, Code.EVENT),
        ([], Code.EVENT),
        (GOOD | {"type": []}, Code.EVENT),
        (GOOD | {"type": "io.matrix_pypi.review.v1"}, Code.EVENT),
        (GOOD | {"content": None}, Code.EVENT),
        (GOOD | {"content": []}, Code.EVENT),
        (GOOD | {"content": {}}, Code.REDACTED_OR_EMPTY),
        (with_content(v=True), Code.EVENT),
        (with_content(v=1.0), Code.EVENT),
        (with_content(**{"m.relates_to": {}}), Code.EVENT),
        (with_content(dsse=None), Code.ENVELOPE),
        (GOOD | {"content": {"v": 1}}, Code.ENVELOPE),
        (with_content(hint=None), Code.HINT),
        (with_content(hint=[]), Code.HINT),
        (with_content(hint=HINT | {"size": 9172.0}), Code.HINT),
        (with_content(hint=HINT | {"size": "9172"}), Code.HINT),
        (with_content(hint=HINT | {"x": 1}), Code.HINT),
        (GOOD | {"state_key": None}, Code.STATE_KEY),
        (GOOD | {"state_key": f"{ORGA.keyid}/{WHEEL}"}, Code.STATE_KEY),
        ({name: GOOD[name] for name in GOOD if name != "state_key"}, Code.STATE_KEY),
    ],
)
def test_an_event_gets_the_code_of_its_first_fault(event: object, code: Code) -> None:
    assert event_code(event) is code


def test_an_attestation_belongs_to_its_projects_room_alone() -> None:
    assert check_event(with_content(hint=HINT), ROOM, KEYS).statement.subject.sha256 == GENUINE
    assert event_code(GOOD, None) is Code.WRONG_ROOM
    assert event_code(GOOD, ProjectName("other")) is Code.WRONG_ROOM


def test_a_withdrawal_has_no_hint_and_stands_in_the_slot_of_its_file() -> None:
    envelope = envelope_of(all_kinds()["withdrawal"])
    event = event_of(envelope, kind="withdrawal")
    assert check_event(event, ROOM, KEYS).statement.subject.sha256 == ID
    event["content"]["hint"] = HINT
    assert event_code(event) is Code.HINT


def test_a_refutation_is_no_state() -> None:
    event = event_of(envelope_of(REFUTATION, ORGB), kind="refutation")
    assert event_code(event) is Code.STATE_KEY
    assert event_code(event | {"state_key": None}) is Code.STATE_KEY


@pytest.mark.parametrize("slot", [None, "", "@other:orga.example", f"{ORGA.keyid[:16]}"])
@pytest.mark.parametrize("kind", ["keys", "announcement"])
def test_manifests_and_announcements_stand_in_their_senders_own_slot(kind: str, slot: str | None) -> None:
    envelope = envelope_of(all_kinds()[kind], SIGNERS.get(kind, ORGA))
    assert event_code(event_of(envelope, kind=kind) | {"state_key": slot}, None) is Code.STATE_KEY
    check_event(event_of(envelope, kind=kind, state_key="@pypi:orga.example"), None, KEYS)


# ---- manifests --------------------------------------------------------------------------------------------------------


def test_a_manifest_may_be_signed_by_roots_that_it_lists_itself_beside_a_known_one() -> None:
    value = manifest(roots=(ROOTA, ROOTA2), threshold=2)
    checked = check_envelope(envelope_of(value, ROOTA, ROOTA2), KEYS, KINDS["urn:matrix-pypi:keys:v1"])
    assert checked.key.public == ROOTA.public


@pytest.mark.parametrize(
    ("signers", "roots", "code"),
    [
        ((ROOTB,), (ROOTB,), Code.KEY_UNKNOWN),
        ((ORGA,), (ROOTA2,), Code.ROLE),
        ((ORGB,), (ROOTA2,), Code.SIGNER_MISMATCH),
    ],
)
def test_a_manifest_by_others_does_not_count(signers: tuple[Any, ...], roots: tuple[Any, ...], code: Code) -> None:
    value = manifest(roots=roots, keys=[])
    assert code_of(envelope_of(value, *signers), KINDS["urn:matrix-pypi:keys:v1"]) is code


def test_a_root_of_former_days_that_signed_a_change_of_roots_is_nothing_to_who_never_knew_it() -> None:
    envelope = envelope_of(manifest(roots=(ROOTA,)), ROOTA, EVIL)
    forged = copy.deepcopy(envelope)
    for signature in forged["signatures"]:
        if signature["keyid"] == EVIL.keyid:
            signature["sig"] = "AAAA"
    for told in (envelope, forged):
        assert check_envelope(told, KEYS, KINDS["urn:matrix-pypi:keys:v1"]).key.keyid == ROOTA.keyid


def test_every_signature_of_a_known_or_listed_key_on_a_manifest_must_be_good() -> None:
    good = envelope_of(manifest(roots=(ROOTA, ROOTA2)), ROOTA, ROOTA2)
    for index, signature in enumerate(good["signatures"]):
        broken = copy.deepcopy(good)
        broken["signatures"][index] = signature | {"sig": "AAAA"}
        assert code_of(broken, KINDS["urn:matrix-pypi:keys:v1"]) is Code.SIG


def test_a_manifest_in_a_log_is_told_by_its_kind_alone() -> None:
    assert code_of(envelope_of(manifest(), ROOTA)) is Code.SIGNER_MISMATCH


# ---- our own ----------------------------------------------------------------------------------------------------------


def test_a_statement_of_ours_is_signed_and_one_too_large_is_not() -> None:
    checked = check_envelope(envelope_of(attestation()), KEYS)
    predicate = checked.statement.predicate
    assert isinstance(predicate, Attestation)
    assert (predicate.cid, predicate.index) == (None, "pypi")
    subjects = {WHEEL: Sha256(GENUINE)}
    assert sign_statement(subjects, predicate, ORGA) == checked.envelope
    with pytest.raises(StatementTooLarge):
        sign_statement({f"rfc8785-{n}.zip": Sha256(GENUINE) for n in range(300)}, predicate, ORGA)


def test_a_head_is_read_from_its_senders_slot() -> None:
    assert head_post("note") == Post(HEAD_EVENT_TYPE, OWNED, {"v": 1, "note": "note"})
    event = {
        "type": HEAD_EVENT_TYPE,
        "state_key": "@a:b",
        "sender": "@a:b",
        "content": {"v": 1, "note": "note"},
    }
    assert read_head(event) == "note"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"type": "m.room.message"}, Code.EVENT),
        ({"content": {}}, Code.REDACTED_OR_EMPTY),
        ({"content": None}, Code.EVENT),
        ({"content": {"v": 2, "note": "x"}}, Code.EVENT),
        ({"content": {"v": 1, "note": 5}}, Code.EVENT),
        ({"content": {"v": 1, "note": "x" * 70_000}}, Code.EVENT),
        ({"content": {"v": 1, "note": "x", "y": 1}}, Code.EVENT),
        ({"state_key": "@c:d"}, Code.STATE_KEY),
        ({"state_key": ""}, Code.STATE_KEY),
    ],
)
def test_another_event_is_no_head(changes: Json, code: Code) -> None:
    event: Json = {
        "type": HEAD_EVENT_TYPE,
        "state_key": "@a:b",
        "sender": "@a:b",
        "content": {"v": 1, "note": "x"},
    }
    with pytest.raises(Rejected) as caught:
        read_head(event | changes)
    assert caught.value.code is code


def test_no_value_is_a_head() -> None:
    with pytest.raises(Rejected):
        read_head(None)


def test_a_kind_must_say_how_its_names_fit() -> None:
    with pytest.raises(NotImplementedError):
        Predicate().check_names(())


def test_a_moment_is_written_in_one_way() -> None:
    assert (str(Instant.of_ms(1_795_352_400_999)), repr(NOW)) == ("2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z")
    assert Instant.parse(str(NOW)) == NOW
    for text in ("2026-11-22T13:00:00Z\n", "2026-11-22 13:00:00Z", "0000-01-01T00:00:00Z", "2026-11-22T13:00:60Z"):
        with pytest.raises(ValueError):
            Instant.parse(text)
