"""What others say is weighed by organisation, never by count, and nothing depends on the order in which it came."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.claims import Claim, Facts
from matrix_pypi_bot.core.court import findings
from matrix_pypi_bot.core.evidence import Doubt, Level, Proves
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import Member, PinnedOrg, build_keyring
from matrix_pypi_bot.core.signers import Keyid, SigningKey
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.core.statement_page import entry_of
from matrix_pypi_bot.core.statements.keys import ListedKey, Log, Manifest, Revoked, RootKey
from matrix_pypi_bot.core.witnesses import NOBODY, combined, weigh
from matrix_pypi_bot.wire.cids import DAG_PB, format_cid, raw_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

NOW = Instant.parse("2026-11-22T13:00:00Z")
TOMORROW = Instant(NOW + 86_400)
FILE, NEXT = FileName("mxa-1.0-py3-none-any.whl"), FileName("mxa-2.0-py3-none-any.whl")
A, B = Sha256("a" * 64), Sha256("b" * 64)
ORGS = ("orga", "orgb", "orgc")


def key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


MAINTAINER = key("maintainer")


def member(name: str, *, revoked: Revoked | None = None, expires: Instant = TOMORROW) -> Member:
    root = key(f"{name} root").public
    listed = ListedKey(
        key=key(name).public.hex(), scheme="ed25519", roles=("mirror", "watcher"), added=NOW, revoked=revoked
    )
    manifest = Manifest(
        org=name, version=1, issued=Instant(expires - 86_400), expires=expires,
        roots=(RootKey(key=root.hex(), scheme="ed25519"),), threshold=1, keys=(listed,), log=Log(origin=name), delegations=(),
    )  # fmt: skip
    pinned = PinnedOrg(name=name, roots=(root,), threshold=1, roles=frozenset({"mirror", "watcher"}))
    return Member(pinned, manifest)


def standing(*members: Member, **told: Any) -> Standing:
    held = members or tuple(member(name) for name in ORGS)
    ring = build_keyring(held, maintainers={ProjectName("mxa"): frozenset({MAINTAINER.public.hex()})})
    return Standing(keyring=ring, own="home", pinned=tuple(one.org for one in held), now=NOW, **told)


def claim(org: str, digest: Sha256 = A, **told: Any) -> Claim:
    fields: dict[str, Any] = {
        "statement_id": hashlib.sha256(repr((org, digest, told)).encode()).hexdigest(),
        "kind": "attestation",
        "file": FILE,
        "subject": digest,
        "org": org,
        "keyid": (MAINTAINER if org == "maint" else key(org)).keyid,
        "index": "pypi",
        "word": "bytes",
        "received_ms": int(NOW) * 1000 - 1,
    }
    return Claim(**(fields | told))


def levels(*claims: Claim, at: Standing | None = None, alive: bool = True) -> dict[str, Level]:
    at = at or standing()
    return {d[:1]: level for d, level in weigh(claims, at).get(FILE, NOBODY).levels(at, alive=alive).items()}


def test_one_organisation_is_one_voice_however_often_it_speaks() -> None:
    assert levels(claim("orga"), claim("orga", serial=2), claim("orga", serial=3)) == {"a": Level.MINORITY}


def test_as_many_as_a_quorum_needs_must_have_hashed_the_bytes() -> None:
    assert levels(claim("orga"), claim("orgb")) == {"a": Level.QUORUM}
    assert levels(claim("orga"), claim("orgb", word="index")) == {"a": Level.MINORITY}


def test_every_watcher_must_have_spoken_and_silence_is_no_consent() -> None:
    ack = claim("orgc", kind="review", word="ok")
    assert levels(claim("orga"), claim("orgb"), ack) == {"a": Level.ACKED}
    for word in ("bad", "unknown"):
        assert levels(claim("orga"), claim("orgb"), claim("orgc", kind="review", word=word)) == {"a": Level.QUORUM}
    assert levels(claim("orga"), claim("orgb"), at=standing(acks_missing_allowed=1)) == {"a": Level.ACKED}


def test_who_saw_a_digest_be_wrong_acks_it_no_more_in_whatever_order_that_arrives() -> None:
    ack, alarm = (claim("orgc", kind="review", word=word) for word in ("ok", "bad"))
    other = claim("orgc", B, kind="review", word="bad")
    for words in ((ack, alarm), (alarm, ack)):
        assert levels(claim("orga"), claim("orgb"), *words) == {"a": Level.QUORUM}
    assert levels(claim("orga"), claim("orgb"), ack, other) == {"a": Level.ACKED}
    back = claim("orgc", Sha256(alarm.statement_id), kind="withdrawal", word="file", index="")
    assert levels(claim("orga"), claim("orgb"), ack, alarm, back) == {"a": Level.ACKED}


def test_a_suspended_key_takes_its_whole_organisation_with_it_until_it_is_said_to_be_stolen() -> None:
    suspended = frozenset({key("orga").keyid})
    claims = (claim("orga"), claim("orgb"))
    assert levels(*claims, at=standing(suspended=suspended)) == {"a": Level.MINORITY}
    stolen = Revoked(at=NOW, reason="stolen", compromised_since=NOW)
    members = (member("orga", revoked=stolen), member("orgb"), member("orgc"))
    assert levels(*claims, at=standing(*members, suspended=suspended)) == {"a": Level.QUORUM}
    late = (claim("orga", received_ms=int(NOW) * 1000), claim("orgb"))
    assert levels(*late, at=standing(*members, suspended=suspended)) == {"a": Level.MINORITY}


def test_a_maintainer_who_lied_takes_no_other_maintainer_with_him() -> None:
    other = key("another maintainer")
    held = tuple(member(name) for name in ORGS)
    pins = {ProjectName("mxa"): frozenset({MAINTAINER.public.hex(), other.public.hex()})}
    ring = build_keyring(held, maintainers=pins)
    at = replace(standing(suspended=frozenset({MAINTAINER.keyid})), keyring=ring)
    by_liar, by_other = claim("maint", B, word="build"), claim("maint", A, word="build", keyid=other.keyid)
    withdrawn = claim("maint", kind="withdrawal", word="version", file=NEXT)
    told = weigh([by_liar, by_other, withdrawn], at, listed=[NEXT])
    assert told[FILE].maintainer == Proves(A)
    assert NEXT not in told


def test_an_expired_manifest_a_silent_log_and_another_index_give_no_weight() -> None:
    expired = (member("orga", expires=NOW), member("orgb"), member("orgc"))
    assert levels(claim("orga"), claim("orgb"), at=standing(*expired)) == {"a": Level.MINORITY}
    silent = standing(head_times={"orgb": NOW, "orgc": NOW})
    assert levels(claim("orga"), claim("orgb"), at=silent) == {"a": Level.MINORITY}
    assert levels(claim("orga"), claim("orgb"), at=silent, alive=False) == {"a": Level.QUORUM}
    assert levels(claim("orga"), claim("orgb", index="corporate")) == {"a": Level.MINORITY}


def test_what_is_taken_back_refuted_or_contested_counts_for_nothing() -> None:
    said = claim("orga")
    back = claim("orga", Sha256(said.statement_id), kind="withdrawal", word="file", index="")
    assert levels(said, claim("orgb"), back) == {"a": Level.MINORITY}
    others = claim("orgb", Sha256(said.statement_id), kind="withdrawal", word="file", index="")
    assert levels(said, claim("orgb"), others) == {"a": Level.QUORUM}
    at = standing()
    found = weigh([said, claim("orgb")], at, frozenset({said.statement_id}))
    assert found[FILE].levels(at, alive=True) == {A: Level.MINORITY}


def test_a_maintainer_confirms_or_contradicts_and_is_no_voice_of_a_quorum() -> None:
    built = claim("maint", word="build")
    found = weigh([built, claim("orga")], standing())[FILE]
    assert (found.maintainer, set(found.digests)) == (Proves(A), {A})
    assert weigh([built], standing())[FILE].digests == {}
    both = weigh([built, claim("maint", B, word="build")], standing())[FILE]
    assert both.maintainer is Doubt.INVALID


def test_a_maintainer_who_takes_a_version_back_means_every_file_of_it_and_no_other() -> None:
    back = claim("maint", Sha256("c" * 64), kind="withdrawal", word="version", index="")
    sdist = FileName("mxa-1.0.tar.gz")
    found = weigh([back, claim("orga", file=NEXT)], standing(), listed=[FILE, sdist, NEXT])
    assert {file for file, one in found.items() if one.withdrawn} == {FILE, sdist}


def test_what_this_organisation_said_itself_is_no_witness() -> None:
    assert weigh([claim("home", keyid=key("home").keyid)], standing()) == {}


def test_two_sources_of_provenance_must_agree() -> None:
    assert combined(Proves(A), None) == combined(None, Proves(A)) == combined(Proves(A), Proves(A)) == Proves(A)
    assert combined(Proves(A), Proves(B)) is Doubt.INVALID
    assert combined(Doubt.PUBLISHER_CHANGED, Proves(A)) is Doubt.PUBLISHER_CHANGED
    assert combined(Proves(A), Doubt.INVALID) is Doubt.INVALID


SAID = st.lists(
    st.builds(
        claim,
        st.sampled_from((*ORGS, "maint", "nobody")),
        st.sampled_from((A, B)),
        kind=st.sampled_from(("attestation", "review")),
        word=st.sampled_from(("bytes", "index", "ok", "bad")),
        serial=st.integers(1, 3),
    ),
    max_size=8,
)


@given(st.data())
def test_neither_order_nor_repetition_changes_what_is_weighed(data: st.DataObject) -> None:
    """P-19."""
    said = data.draw(SAID)
    shuffled = data.draw(
        st.permutations([*said, *data.draw(st.lists(st.sampled_from(said), max_size=3))] if said else [])
    )
    one, other = weigh(said, standing()), weigh(shuffled, standing())
    assert one.keys() == other.keys()
    for file in one:
        assert one[file].digests == other[file].digests
        assert one[file].maintainer == other[file].maintainer


@given(SAID, st.integers(1, 50))
def test_keys_that_nobody_pinned_change_nothing(said: list[Claim], strangers: int) -> None:
    """P-22."""
    noise = [claim(f"sybil{n}", B, keyid=Keyid(f"{n:064x}")) for n in range(strangers)]
    assert weigh([*noise, *said], standing()) == weigh(said, standing())


def test_metadata_counts_when_every_watcher_attests_the_same_for_what_it_names_gets_installed() -> None:
    """A quorum of liars beside the true digest must not choose what is installed with it."""

    def entry(**told: Sha256 | None) -> Sha256 | bool:
        claims = [claim(org, facts=Facts(core_metadata=one, size=1)) for org, one in told.items()]
        acks = [claim(org, kind="review", word="ok") for org in ORGS if org not in told]
        at = standing()
        found = weigh([*claims, *acks], at)[FILE]
        assert found.levels(at, alive=False) == {A: Level.ACKED}
        made = entry_of(FILE, found, at)
        assert made.size == 1
        return made.core_metadata

    assert entry(orga=B, orgb=B, orgc=B) == B
    assert entry(orga=B, orgb=B, orgc=A) is False
    assert entry(orga=B, orgb=B) is False
    assert entry(orga=B, orgb=B, orgc=None) is False


def test_what_two_quorums_tell_differently_is_not_told() -> None:
    at = standing(quorum=1)
    claims = [
        claim("orga", facts=Facts(size=1)),
        claim("orgb", facts=Facts(size=2)),
        claim("orgc", facts=Facts(size=2)),
    ]
    assert entry_of(FILE, weigh(claims, at)[FILE], at).size is None


def test_a_wrong_cid_of_our_own_or_of_who_has_our_key_convicts_nobody() -> None:
    """F7 rests on what was hashed here."""
    right, wrong = (format_cid(DAG_PB, Sha256(digit * 64)) for digit in "12")
    members = (member("home"), *(member(name) for name in ORGS))
    revoked = (
        member("home", revoked=Revoked(at=NOW, reason="stolen", compromised_since=Instant(NOW - 1))),
        *members[1:],
    )

    def convicted(*own: str, by: tuple[Member, ...] = members, cid: str = right) -> list[str]:
        claims = [claim("home", facts=Facts(cid=one)) for one in own] + [claim("orga", facts=Facts(cid=cid))]
        return [found.accused.org for found in findings(claims, standing(*by), {}, {}, frozenset())]

    assert convicted(wrong) == ["orga"]
    assert convicted(right) == []
    assert convicted(right, wrong) == []
    assert convicted(wrong, by=revoked) == []
    assert convicted(wrong, cid=raw_cid(A)) == []
