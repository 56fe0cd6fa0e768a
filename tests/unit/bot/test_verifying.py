"""What trust pages prove to somebody who pinned root keys: mirrors can hide statements, and neither add one nor lie unnoticed."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.gathering import Pins, Source, gather
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.notes import Checkpoint, sign_checkpoint
from matrix_pypi_bot.core.provenance import Finding
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, SigningKey
from matrix_pypi_bot.core.tlog import inclusion_proof, leaf_hash, root_of
from matrix_pypi_bot.core.verifying import Asked, Bar, FileReport, examine
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.trust import TrustFile
from tests.support.plain_statements import (
    EVIL,
    FALSE,
    GENUINE,
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
    id_of,
    listed_key,
    manifest,
    payload_of,
    refutation,
    statement,
)

ROOTC = SigningKey(b"\x31" * 32)
LATER = Instant(NOW + 3_600)


def pinned(name: str, *roots: SigningKey, threshold: int = 1) -> PinnedOrg:
    return PinnedOrg(
        name=name,
        roots=tuple(root.public for root in roots),
        threshold=threshold,
        roles=frozenset({MIRROR, WATCHER}),
    )


PINS = Pins(orgs=(pinned("orga", ROOTA), pinned("orgb", ROOTB), pinned("orgc", ROOTC)))
MANIFESTS: dict[str, list[Json]] = {
    "orga": [envelope_of(manifest(), ROOTA)],
    "orgb": [envelope_of(manifest("orgb", roots=(ROOTB,), keys=[listed_key(ORGB)]), ROOTB)],
    "orgc": [envelope_of(manifest("orgc", roots=(ROOTC,), keys=[listed_key(ORGC)]), ROOTC)],
}
BY_A, BY_B, BY_C = attestation(), attestation(ORGB, "orgb"), attestation(ORGC, "orgc")
FALSE_BY_A = attestation(sha256=FALSE)
ALL = (envelope_of(BY_A), envelope_of(BY_B, ORGB), envelope_of(BY_C, ORGC))


def page(*envelopes: Json, org: str = "orga", **told: Any) -> Source:
    """A mirror's page with these statements; `told` replaces keys of the document."""
    document = {
        "org": org,
        "project": PROJECT,
        "file": WHEEL,
        "decision": {"action": "serve", "http": 200, "rule": "R8"},
        "rule": "R8",
        "reason": "",
        "sha256": GENUINE,
        "evidence": [],
        "envelopes": envelopes,
        "refutations": [],
        "verdicts": [],
        "manifests": MANIFESTS,
        "log": {"origin": f"{org}/matrix-pypi", "note": None, "proofs": {}},
        **told,
    }
    return Source(f"https://{org}.example", msgspec.json.decode(json.dumps(document), type=TrustFile))


def report(
    *sources: Source,
    pins: Pins = PINS,
    now: Instant = LATER,
    lies: tuple[str, ...] = (),
    sha256: str = GENUINE,
    **bar: Any,
) -> FileReport:
    asked = Asked(
        project=ProjectName(PROJECT), version="0.1.2", file=FileName(WHEEL), accepted=frozenset({Sha256(sha256)})
    )
    return examine(asked, gather(sources, pins, now=now), pins, Bar(**bar), now=now, lies=lies)


def status(*sources: Source, **options: Any) -> tuple[str, tuple[str, ...]]:
    told = report(*sources, **options)
    return told.status, told.orgs


def log_of(*payloads: bytes, key: SigningKey = ORGA, prove: int = 0) -> Json:
    """The log part of a page whose log has these leaves, with a proof of one of them."""
    leaves = [leaf_hash(payload) for payload in payloads]
    note = sign_checkpoint(Checkpoint("orga/matrix-pypi", len(leaves), root_of(leaves)), key)
    hashes = [base64.b64encode(one).decode() for one in inclusion_proof(prove, leaves)]
    statement_id = id_of(json.loads(payloads[prove])) if payloads[prove].startswith(b"{") else "0" * 64
    return {
        "origin": "orga/matrix-pypi",
        "note": str(note),
        "proofs": {statement_id: {"leaf": prove, "hashes": hashes}},
    }


# ---- who counts -----------------------------------------------------------------------------------------------------


def test_what_pinned_organisations_attest_is_verified() -> None:
    assert status(page(*ALL)) == ("ok", ("orga", "orgb", "orgc"))


def test_several_mirrors_show_more_than_one_and_an_organisation_counts_once() -> None:
    both = (page(ALL[0]), page(ALL[0], ALL[1], org="orgb"))
    assert (status(*both), status(*both, needed=2)) == (("ok", ("orga", "orgb")), ("ok", ("orga", "orgb")))
    assert status(*both, needed=3)[0] == "unattested"


def test_nobody_is_nobody() -> None:
    assert report(page()).reasons == ("nobody pinned attests these bytes",)
    assert (status(page()), status()) == (("unattested", ()), ("unattested", ()))


def test_a_key_that_nobody_pinned_adds_nothing() -> None:
    forged = envelope_of(attestation(EVIL, "orga"), EVIL)
    renamed = envelope_of(attestation(ORGA, "orga"), EVIL)
    broken = {**ALL[0], "payload": base64.b64encode(payload_of(FALSE_BY_A)).decode()}
    assert status(page(forged, renamed, broken)) == ("unattested", ())


def test_keys_come_from_the_pinned_roots_and_from_nothing_that_a_mirror_says() -> None:
    own = {"orga": [envelope_of(manifest(keys=[listed_key(EVIL)], roots=(EVIL,)), EVIL)]}
    assert status(page(envelope_of(attestation(EVIL), EVIL), manifests=own))[0] == "unattested"
    assert status(page(ALL[0], manifests={}))[0] == "unattested"


def test_an_expired_manifest_has_no_voice() -> None:
    assert status(page(*ALL), now=Instant(NOW + 91 * 86_400)) == ("unattested", ())


def test_who_only_read_the_index_did_not_hash_the_bytes() -> None:
    read = envelope_of(attestation(source={"kind": "pypi", "method": "index", "index": "pypi"}))
    assert status(page(read)) == ("unattested", ())


def test_statements_about_another_index_are_about_other_files() -> None:
    assert status(page(*ALL), index="mine") == ("unattested", ())


# ---- roots that changed, keys that ended ----------------------------------------------------------------------------


def rotated(*signers: SigningKey) -> Json:
    return envelope_of(manifest(version=2, roots=(ROOTA2,), keys=[listed_key(EVIL)]), *signers)


NEWEST = envelope_of(manifest(version=3, roots=(ROOTA2,), keys=[listed_key(ORGA)]), ROOTA2)


def test_a_root_that_was_pinned_before_it_changed_still_leads_to_the_keys() -> None:
    chain_of_roots = {"orga": [NEWEST, rotated(ROOTA, ROOTA2), *MANIFESTS["orga"]]}
    assert status(page(ALL[0], manifests=chain_of_roots)) == ("ok", ("orga",))


@pytest.mark.parametrize("step", [rotated(ROOTA2), rotated(ROOTA), envelope_of(manifest(version=1), ROOTA)])
def test_a_change_of_roots_is_signed_by_the_old_and_the_new(step: Json) -> None:
    assert status(page(ALL[0], manifests={"orga": [step, NEWEST]}), sha256=FALSE)[0] != "ok"
    told = gather([page(ALL[0], manifests={"orga": [step, NEWEST]})], PINS, now=LATER).keyring.member("orga")
    assert told is not None
    assert told.manifest is None or told.manifest.version == 1


def test_a_threshold_of_roots_is_reached_or_nothing_is() -> None:
    pins = Pins(orgs=(pinned("orga", ROOTA, ROOTA2, threshold=2),))
    two = envelope_of(manifest(roots=(ROOTA, ROOTA2), threshold=2), ROOTA, ROOTA2)
    one = envelope_of(manifest(roots=(ROOTA, ROOTA2), threshold=2), ROOTA)
    assert status(page(ALL[0], manifests={"orga": [two]}), pins=pins)[0] == "ok"
    assert status(page(ALL[0], manifests={"orga": [one]}), pins=pins)[0] == "unattested"


def ended(**more: object) -> dict[str, list[Json]]:
    end = {"at": str(Instant(NOW + 60)), "reason": "x", "compromised_since": None, **more}
    return {**MANIFESTS, "orga": [envelope_of(manifest(version=2, keys=[listed_key(ORGA, revoked=end)]), ROOTA)]}


def test_what_was_signed_before_a_routine_end_stays_good() -> None:
    assert status(page(ALL[0], manifests=ended())) == ("ok", ("orga",))
    late = envelope_of(attestation(issued=str(Instant(NOW + 61))))
    assert status(page(late, manifests=ended())) == ("unattested", ())


def test_of_a_stolen_key_nothing_counts_whatever_time_it_wrote() -> None:
    stolen = ended(compromised_since=str(Instant(NOW + 59)))
    assert status(page(ALL[0], manifests=stolen)) == ("unattested", ())


def test_the_newest_manifest_that_any_mirror_shows_holds() -> None:
    assert status(page(ALL[0]), page(manifests=ended(compromised_since=str(NOW)), org="orgb"))[0] == "unattested"


# ---- who contradicts ------------------------------------------------------------------------------------------------


def test_another_digest_is_a_contradiction_until_as_many_as_are_needed_agree() -> None:
    dissent = envelope_of(attestation(ORGC, "orgc", sha256=FALSE), ORGC)
    assert status(page(dissent))[0] == "contradicted"
    assert status(page(ALL[0], dissent))[0] == "contradicted", "one against one"
    assert status(page(ALL[0], ALL[1], dissent), needed=2) == ("ok", ("orga", "orgb"))
    told = report(page(ALL[0], ALL[1], dissent), needed=2)
    assert told.notes == ("orgc attests bf0d6d3f14b0, outvoted",)


def test_a_lie_that_was_found_elsewhere_ends_it() -> None:
    told = report(page(*ALL), lies=("https://orga.example sends other bytes, 1234",))
    assert (told.status, told.reasons) == ("contradicted", ("https://orga.example sends other bytes, 1234",))


def test_a_key_that_signed_two_digests_counts_for_neither() -> None:
    told = report(page(ALL[0], envelope_of(FALSE_BY_A), ALL[1]))
    assert (told.status, told.orgs, told.notes) == ("ok", ("orgb",), ("a key of orga signed contradictory statements",))
    alone = report(page(ALL[0], envelope_of(FALSE_BY_A)))
    assert (alone.status, alone.reasons) == ("refuted", ("a key of orga signed contradictory statements",))


def test_what_else_a_key_signed_does_not_hide_that_it_signed_two_digests() -> None:
    other = statement("attestation", "rfc8785-0.1.3-py3-none-any.whl", FALSE, {**BY_A["predicate"], "version": "0.1.3"})
    liar = page(envelope_of(other), envelope_of(FALSE_BY_A))
    told = report(liar, page(ALL[0], ALL[1], org="orgb"), sha256=FALSE)
    assert (told.status, told.orgs) == ("contradicted", ())


def test_a_raw_cid_of_other_bytes_convicts_its_signer() -> None:
    lie = envelope_of(attestation(sha256=FALSE, cid=RAW_CID))
    assert status(page(ALL[0], lie)) == ("refuted", ())


def accusation(fault: str, accused: Json, evidence: Json, by: SigningKey = ORGB, org: str = "orgb") -> Json:
    told = refutation(
        fault,
        ("attestation", id_of(accused)),
        {"envelopes": [envelope_of(accused)], **evidence},
        reporter={"org": org, "key": by.keyid},
    )
    return envelope_of(told, by)


def test_an_accusation_of_the_bytes_that_cannot_be_checked_here_is_not_passed_over() -> None:
    accused = accusation("pypi-digest", BY_A, {"sha256": FALSE, "at": str(NOW)})
    told = report(page(*ALL, refutations=[accused]))
    assert (told.status, told.reasons) == ("refuted", ("orgb says that it is false (pypi-digest)",))


def test_an_accusation_of_the_other_bytes_takes_those_out() -> None:
    accused = accusation("pypi-digest", FALSE_BY_A, {"sha256": GENUINE, "at": str(NOW)})
    assert status(page(envelope_of(FALSE_BY_A), ALL[1], refutations=[accused])) == ("ok", ("orgb",))


def test_an_accusation_by_nobody_is_nothing() -> None:
    by_nobody = accusation("pypi-digest", BY_A, {"sha256": FALSE, "at": str(NOW)}, EVIL, "orgb")
    assert status(page(*ALL, refutations=[by_nobody])) == ("ok", ("orga", "orgb", "orgc"))


def test_a_proof_of_two_digests_that_a_refutation_carries_is_checked_here() -> None:
    proof = accusation("equivocation", BY_A, {"envelopes": [envelope_of(BY_A), envelope_of(FALSE_BY_A)]})
    false_proof = accusation("equivocation", BY_A, {"envelopes": [envelope_of(BY_A), envelope_of(BY_A)]})
    assert status(page(*ALL, refutations=[proof])) == ("ok", ("orgb", "orgc"))
    assert status(page(*ALL, refutations=[false_proof])) == ("ok", ("orga", "orgb", "orgc"))


def withdrawal(by: SigningKey, org: str, scope: str = "file") -> Json:
    predicate = {
        **chain(by, org),
        "project": PROJECT,
        "version": "0.1.2",
        "file": WHEEL,
        "reason": "error",
        "scope": scope,
    }
    return envelope_of(statement("withdrawal", "attestation", id_of(BY_A), predicate), by)


def test_what_was_taken_back_counts_no_more() -> None:
    assert status(page(ALL[0], ALL[1], withdrawal(ORGA, "orga"))) == ("ok", ("orgb",))
    assert status(page(ALL[0], withdrawal(ORGB, "orgb"))) == ("ok", ("orga",)), "only by who said it"


# ---- maintainers ----------------------------------------------------------------------------------------------------

WITH_MAINTAINER = Pins(orgs=PINS.orgs, maintainers={ProjectName(PROJECT): frozenset({MAINT.public.hex()})})


def built(sha256: str = GENUINE) -> Json:
    return envelope_of(attestation(MAINT, "maint", sha256=sha256, source={"kind": "build", "method": "bytes"}), MAINT)


def test_a_maintainer_confirms_or_contradicts_and_never_counts() -> None:
    told = report(page(ALL[0], built()), pins=WITH_MAINTAINER)
    assert (told.status, told.orgs, told.built_by_maintainer) == ("ok", ("orga",), True)
    assert status(page(built()), pins=WITH_MAINTAINER) == ("unattested", ())
    assert status(page(*ALL, built(FALSE)), pins=WITH_MAINTAINER)[0] == "contradicted"
    assert status(page(*ALL, built(FALSE)))[0] == "ok", "somebody whom nobody named"


def test_a_maintainer_takes_a_version_back() -> None:
    taken = withdrawal(MAINT, "maint", "version")
    told = report(page(*ALL, taken), pins=WITH_MAINTAINER)
    assert (told.status, told.reasons) == ("refuted", ("withdrawn by its maintainer",))


# ---- provenance -----------------------------------------------------------------------------------------------------

HOME = Publisher("github", "trailofbits/rfc8785", "release.yml")
ELSEWHERE = Publisher("github", "mallory/rfc8785", "release.yml")
PINNED = Pins(orgs=PINS.orgs, publishers={ProjectName(PROJECT): (HOME.home,)})


def published(finding: Finding, pins: Pins = PINS) -> FileReport:
    asked = Asked(
        project=ProjectName(PROJECT), version="0.1.2", file=FileName(WHEEL), accepted=frozenset({Sha256(GENUINE)})
    )
    gathered = gather([page(*ALL)], pins, now=LATER)
    return examine(asked, gathered, pins, Bar(), now=LATER, provenance=[finding])


def test_a_publishers_signature_confirms_or_contradicts() -> None:
    good = published(Finding(sha256=Sha256(GENUINE), publishers=(HOME,)), PINNED)
    assert (good.status, good.published_by) == ("ok", ("github trailofbits/rfc8785 (release.yml)",))
    other = published(Finding(sha256=Sha256(FALSE), publishers=(HOME,)))
    assert (other.status, other.reasons, other.published_by) == (
        "contradicted",
        (f"its publisher signed {FALSE[:12]}",),
        (),
    )
    forged = published(Finding(fault="a bad signature"))
    assert (forged.status, forged.reasons) == ("contradicted", ("its provenance is invalid: a bad signature",))


def test_another_publisher_than_the_pinned_one_contradicts_and_without_a_pin_is_only_told() -> None:
    finding = Finding(sha256=Sha256(GENUINE), publishers=(ELSEWHERE,))
    assert published(finding, PINNED).status == "contradicted"
    assert (published(finding).status, published(finding).published_by) == ("ok", (str(ELSEWHERE),))


def test_what_nobody_here_can_judge_changes_nothing() -> None:
    told = published(Finding(unknown="another log"), PINNED)
    assert (told.status, told.published_by) == ("ok", ())


# ---- logs -----------------------------------------------------------------------------------------------------------


def test_a_statement_is_proved_to_be_in_its_log() -> None:
    log = log_of(b"another", payload_of(BY_A), b"a third", prove=1)
    told = report(page(*ALL, log=log))
    assert (told.status, told.orgs, told.logged) == ("ok", ("orga", "orgb", "orgc"), ("orga",))
    assert status(page(*ALL, log=log), in_log=True) == ("ok", ("orga",))
    assert status(page(*ALL), in_log=True) == ("unattested", ())


def test_a_statement_in_somebody_elses_log_is_not_in_its_own() -> None:
    other = {**MANIFESTS, "orgb": [envelope_of(manifest("orgb", roots=(ROOTB,), keys=[listed_key(ORGB)]), ROOTB)]}
    leaf = leaf_hash(payload_of(BY_A))
    note = sign_checkpoint(Checkpoint("orgb/matrix-pypi", 1, root_of([leaf])), ORGB)
    log = {"origin": "orgb/matrix-pypi", "note": str(note), "proofs": {id_of(BY_A): {"leaf": 0, "hashes": []}}}
    told = report(page(ALL[0], org="orgb", manifests=other, log=log))
    assert (told.status, told.logged) == ("ok", ())


def test_a_proof_that_proves_nothing_is_a_lie() -> None:
    log = log_of(b"another", payload_of(BY_A), prove=1)
    log["proofs"][id_of(BY_A)]["leaf"] = 0
    told = report(page(*ALL, log=log))
    assert (told.status, told.reasons) == (
        "contradicted",
        (f"https://orga.example: its log does not hold the statement {id_of(BY_A)[:16]}",),
    )


@pytest.mark.parametrize("hashes", [["!"], [""], ["AAAA"], ["\u2028"]])
def test_hashes_that_are_none_are_a_lie(hashes: list[str]) -> None:
    log = log_of(b"another", payload_of(BY_A), prove=1)
    log["proofs"][id_of(BY_A)]["hashes"] = hashes
    assert status(page(*ALL, log=log))[0] == "contradicted"


def test_a_checkpoint_by_another_key_is_a_lie() -> None:
    assert status(page(*ALL, log=log_of(payload_of(BY_A), key=EVIL)))[0] == "contradicted"
    assert status(page(*ALL, log={"origin": "orga/matrix-pypi", "note": "x", "proofs": {}}))[0] == "contradicted"


def test_a_log_of_somebody_whom_nobody_pinned_is_left_aside() -> None:
    log = {"origin": "orgx/matrix-pypi", "note": "x", "proofs": {}}
    assert status(page(*ALL, log=log, org="orgx"))[0] == "ok"


def test_two_trees_of_one_size_take_the_organisation_its_voice() -> None:
    one = page(*ALL, log=log_of(payload_of(BY_A)))
    other = page(log=log_of(b"another"), org="orga")
    told = report(one, other)
    assert (told.status, told.orgs) == ("contradicted", ("orgb", "orgc"))
    assert told.reasons == ("orga/matrix-pypi: this log shows different trees to different readers",)


# ---- hostile pages --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["envelopes", "refutations", "verdicts", "manifests", "log", "sha256", "decision", "evidence"])


@given(st.lists(st.tuples(KEYS, JSON), max_size=4))
def test_whatever_a_mirror_says_it_is_no_page_or_a_report(changes: list[tuple[str, Any]]) -> None:
    try:
        source = page(*ALL, **dict(changes))
    except (msgspec.MsgspecError, ValueError):
        return  # what the client tells as a lie
    assert report(source).status in ("ok", "unattested", "contradicted", "refuted")


@given(
    st.lists(
        st.recursive(st.sampled_from(ALL) | JSON, lambda inner: st.lists(inner, max_size=3), max_leaves=4), max_size=5
    ),
    st.dictionaries(st.sampled_from(["orga", "orgb", "x"]), st.lists(JSON, max_size=3), max_size=3),
    st.text(max_size=300),
    st.dictionaries(
        st.text(max_size=64), st.tuples(st.integers(), st.lists(st.text(max_size=50), max_size=3)), max_size=3
    ),
)
def test_envelopes_manifests_and_proofs_of_any_shape_never_add_a_voice(
    envelopes: list[Any], manifests: dict[str, Any], note: str, proofs: dict[str, tuple[int, list[str]]]
) -> None:
    try:
        source = page(
            *envelopes,
            refutations=envelopes,
            manifests=manifests,
            log={
                "origin": "orga/matrix-pypi",
                "note": note,
                "proofs": {key: {"leaf": leaf, "hashes": hashes} for key, (leaf, hashes) in proofs.items()},
            },
        )
    except (msgspec.MsgspecError, ValueError):
        return
    assert report(source).orgs == ()
