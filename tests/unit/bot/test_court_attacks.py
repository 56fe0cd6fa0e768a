"""What a pinned organisation may try against the others' judging: none of it stops them, silences anybody or frames anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from matrix_pypi_bot.core.envelope import Envelope
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.keys import ListedKey
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault, Refutation
from matrix_pypi_bot.services.keys import ensure_manifest, newest, publish
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.dists import Dist, wheel
from tests.support.federation import Federation, Participant, federation

ONE = wheel("mxa", "1.0")
EVIL = wheel("mxa", "1.0", salt="evil")


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        yield made


def lie_with(liar: Participant, dist: Dist, **changed: object) -> Envelope:
    """The liar's attestation of the file, with other fields."""
    told = read_statement(liar.lie(dist).payload, Attestation).predicate
    assert isinstance(told, Attestation)
    return liar.sign({dist.filename: dist.sha256}, msgspec.structs.replace(told, **changed))


async def test_a_lie_too_large_to_be_refuted_counts_for_nothing_and_stops_nobody(three: Federation) -> None:
    three.publish(ONE)
    await three["orgb"].take(lie_with(three["orga"], EVIL, ext={"note": "x" * 15_000}))
    assert await three["orgb"].rule(ONE) == ("R8", ONE.sha256)
    three.upstream_off()
    await three["orgc"].take(lie_with(three["orga"], EVIL, ext={"note": "x" * 15_000}))
    async with three["orgc"].store.transaction() as tables:
        assert not await tables.ledger.claims(ProjectName("mxa"))


async def test_an_attestation_for_another_index_cannot_be_accused_by_what_this_one_says(three: Federation) -> None:
    three.publish(ONE)
    elsewhere = lie_with(three["orga"], EVIL, source=Source(kind="pypi", method="bytes", index="corp"))
    await three["orgb"].take(elsewhere)
    await three["orgb"].take(accusation(three, elsewhere, ONE.sha256, by="orgc"))
    assert three["orgb"].outcasts == frozenset()
    assert await three["orgb"].verdicts(ONE) == [("orga", "pypi-digest", "DISMISSED")]


def accusation(three: Federation, accused: Envelope, sha256: str, *, by: str, of: str = "orga") -> Envelope:
    accuser = three[by]
    now = Instant.of_ms(three.clock.now_ms())
    return accuser.sign(
        {"attestation": accused.id},
        Refutation(
            fault=Fault.PYPI_DIGEST,
            project="mxa",
            file=ONE.filename,
            accused=three[of].organisation.mirror.keyid,
            observed=now,
            reporter=SignedBy(org=by, key=accuser.organisation.mirror.keyid),
            evidence=Evidence(envelopes=(accused.to_json(),), sha256=sha256, at=now),
        ),
    )


async def test_a_project_that_cannot_be_judged_keeps_no_other_one_waiting(
    three: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = wheel("mxb", "1.0")
    three.publish(ONE, two)
    here, look = three["orgc"], three["orgc"].court.look

    async def fails(project: ProjectName, seen: object = None) -> object:
        if project == "mxa":
            raise ValueError("whatever it is")
        return await look(project)

    monkeypatch.setattr(here.court, "look", fails)
    await here.take(three["orga"].lie(EVIL), three["orgb"].lie(wheel("mxb", "1.0", salt="evil")))
    assert await here.verdicts(two) == [("orgb", "pypi-digest", "UPHELD")]


async def lists_keys_of(liar: Participant, other: Participant) -> None:
    """A manifest of the liar that lists the other's mirror key and root among its own keys, as everybody can who read the other's."""
    now = Instant.of_ms(liar.clock.now_ms())
    foreign = [
        ListedKey(key=key.public.hex(), scheme="ed25519", roles=("mirror", "watcher"), added=now, revoked=None)
        for key in (other.organisation.mirror, other.organisation.root)
    ]
    async with liar.store.transaction() as tables:
        held, highest = await newest(tables, liar.organisation)
        assert held is not None
        await publish(
            tables,
            liar.organisation,
            held,
            [*held.keys, *foreign],
            highest + 1,
            now_ms=liar.clock.now_ms(),
            bot_mxid="@pypi:orga",
        )


async def test_who_lists_the_keys_of_another_organisation_does_not_silence_it(three: Federation) -> None:
    three.publish(ONE)
    await lists_keys_of(three["orga"], three["orgb"])
    await three["orgc"].hear(three["orga"])
    await three["orgb"].serve(ONE)
    renewed = three["orgb"]
    three.clock.pass_seconds(80 * 86_400)
    await ensure_manifest(renewed.store, renewed.clock, renewed.organisation, bot_mxid="@pypi:orgb")
    await three["orgc"].hear(three["orgb"])
    here = three["orgc"].members
    held = here.manifest("orgb")
    assert held is not None
    assert held.version == 2
    three.clock.pass_seconds(11 * 86_400)  # the liar's manifest ran out, and says nothing about the other's key
    async with three["orgc"].store.transaction() as tables:
        claims = await tables.ledger.claims(ProjectName("mxa"))
    [claim] = [one for one in claims if one.kind == "attestation"]
    assert claim.org == "orgb"
    assert here.standing().counts(claim)


async def test_who_lists_the_key_of_a_liar_is_a_liar_too(three: Federation) -> None:
    """Whoever holds a key speaks for every organisation that lists it."""
    three.publish(ONE)
    await lists_keys_of(three["orga"], three["orgb"])
    await three["orgc"].hear(three["orga"])
    await three["orgc"].take(three["orgb"].lie(EVIL))
    assert three["orgc"].outcasts == {"orga", "orgb"}
