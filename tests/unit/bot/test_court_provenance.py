"""Accusations that carry provenance (F5): everybody who knows the publisher judges them alone, without upstream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from matrix_pypi_bot.adapters.provenance.verify import SigstoreVerifier
from matrix_pypi_bot.core.envelope import Envelope
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault, Refutation
from tests.support.bot_world import MXA, ScriptedDocuments, Verification
from tests.support.dists import Dist, wheel
from tests.support.fake_sigstore import EVIL as EVIL_PUBLISHER
from tests.support.fake_sigstore import GITHUB, FakeSigstore
from tests.support.federation import Federation, federation

ONE = wheel("mxa", "1.0")
EVIL = wheel("mxa", "1.0", salt="evil")
SIGSTORE = FakeSigstore()
ADDRESS = "https://index.example/integrity/one"
Proving = Callable[..., AbstractAsyncContextManager[Federation]]


@pytest.fixture
def proving(tmp_path: Path) -> Proving:
    """Three organisations that verify provenance; the operators of all pinned the publishers of the project."""
    root = tmp_path / "root.json"
    root.write_bytes(SIGSTORE.trusted_root())

    def begin(*pins: Publisher) -> AbstractAsyncContextManager[Federation]:
        documents = ScriptedDocuments({ADDRESS: SIGSTORE.provenance(GITHUB, ONE.filename, ONE.sha256)})
        verification = Verification(
            verifier=SigstoreVerifier(root), documents=documents, pins={MXA: pins} if pins else {}
        )
        return federation(tmp_path, "orga", "orgb", "orgc", verification=verification)

    return begin


def accusation(made: Federation, accused: Envelope, publisher: Publisher, sha256: str) -> Envelope:
    """Signed by orgb: what orga said is false, here is what the publisher signed."""
    orga, orgb = made["orga"].organisation.mirror.keyid, made["orgb"].organisation.mirror.keyid
    return made["orgb"].sign(
        {"attestation": accused.id},
        Refutation(
            fault=Fault.PROVENANCE,
            project="mxa",
            file=ONE.filename,
            accused=orga,
            observed=Instant.of_ms(made.clock.now_ms()),
            reporter=SignedBy(org="orgb", key=orgb),
            evidence=Evidence(envelopes=(accused.to_json(),), bundle=SIGSTORE.bundle(publisher, ONE.filename, sha256)),
        ),
    )


async def test_who_attested_other_bytes_than_the_publisher_signed_is_convicted_without_upstream(
    proving: Proving,
) -> None:
    async with proving(GITHUB) as made:
        made.upstream_off()
        lie = made["orga"].lie(EVIL)
        await made["orgc"].take(lie, accusation(made, lie, GITHUB, ONE.sha256))
        assert await made["orgc"].verdicts(ONE) == [("orga", "provenance", "UPHELD")]
        assert made["orgc"].outcasts == {"orga"}
        assert [e for e in await made["orgc"].said() if b"refutation:v1" in e.payload]


@pytest.mark.parametrize(
    ("attested", "publisher", "proven"),
    [(ONE, GITHUB, ONE), (EVIL, EVIL_PUBLISHER, ONE)],
    ids=["true word", "stranger"],
)
async def test_a_bundle_that_shows_nothing_convicts_nobody(
    proving: Proving, attested: Dist, publisher: Publisher, proven: Dist
) -> None:
    async with proving(GITHUB) as made:
        made.upstream_off()
        word = made["orga"].lie(attested)
        await made["orgc"].take(word, accusation(made, word, publisher, proven.sha256))
        assert ("orga", "provenance", "DISMISSED") in await made["orgc"].verdicts(ONE)
        assert made["orgc"].outcasts == frozenset()


async def test_without_a_publisher_that_is_known_here_nobody_is_convicted_by_a_bundle(proving: Proving) -> None:
    async with proving() as made:
        made.upstream_off()
        lie = made["orga"].lie(EVIL)
        await made["orgc"].take(lie, accusation(made, lie, GITHUB, ONE.sha256))
        assert ("orga", "provenance", "UPHELD") not in await made["orgc"].verdicts(ONE)
        assert made["orgc"].outcasts == frozenset()


async def test_a_liar_is_accused_with_what_the_publisher_signed_where_that_was_verified(proving: Proving) -> None:
    async with proving(GITHUB) as made:
        made.publish(ONE, to=["orgb"], provenance=ADDRESS)
        await made["orgb"].serve(ONE)
        await made["orgb"].take(made["orga"].lie(EVIL))
        assert await made["orgb"].verdicts(ONE) == [("orga", "pypi-digest", "UPHELD")]
        made.upstream_off()
        await made["orgc"].hear(made["orgb"])
        assert await made["orgc"].verdicts(ONE) == [("orga", "provenance", "UPHELD")]
        assert made["orgc"].outcasts == {"orga"}


async def test_what_colluders_attest_falls_to_what_the_known_publisher_signed_without_anybody_asking(
    proving: Proving,
) -> None:
    async with proving(GITHUB) as made:
        made.publish(ONE, to=["orgc"], provenance=ADDRESS)
        await made["orgc"].take(made["orga"].lie(EVIL), made["orgb"].lie(EVIL))
        assert (await made["orgc"].verdicts(ONE))[-2:] == [
            ("orga", "pypi-digest", "UPHELD"),
            ("orgb", "pypi-digest", "UPHELD"),
        ]
        assert made["orgc"].outcasts == {"orga", "orgb"}
        assert await made["orgc"].rule(ONE) == ("R8", ONE.sha256)
        accused = [
            read_statement(e.payload, Refutation).predicate
            for e in await made["orgc"].said()
            if b"refutation:v1" in e.payload
        ]
        assert {told.fault for told in accused} == {Fault.PROVENANCE}


async def test_where_no_publisher_was_known_before_the_first_document_shown_settles_nothing(proving: Proving) -> None:
    async with proving() as made:
        made.publish(ONE, to=["orgc"], provenance=ADDRESS)
        await made["orgc"].take(made["orga"].lie(EVIL), made["orgb"].lie(EVIL))
        assert await made["orgc"].rule(ONE) == ("R5", None)
        assert made["orgc"].outcasts == frozenset()
        async with made["orgc"].store.transaction() as tables:
            assert await tables.provenance.pinned(MXA) is None
