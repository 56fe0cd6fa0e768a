"""Organisations in bad hands: good keys, good signatures, and statements of whatever kind somebody wants them to make."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from matrix_pypi_bot.core.envelope import Envelope, read_envelope
from matrix_pypi_bot.core.events import sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import Checkpoint, sign_checkpoint
from matrix_pypi_bot.core.signers import Keyid, SigningKey
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import OWNED, Predicate, SignedBy
from matrix_pypi_bot.core.statements.keys import ListedKey, Log, Manifest, Revoked, RootKey
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault, Refutation
from matrix_pypi_bot.core.statements.review import Review
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.ports import PROJECT_ROOM, TRUST_ROOM
from matrix_pypi_bot.services.signing import envelope_json
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import FileName, project_and_version
from tests.byzantine.network import Event
from tests.byzantine.world import World
from tests.support.dists import Dist
from tests.support.federation import key, organisation


class Liar:
    """One that others pinned. What it says stands in its log and is posted, unless it is said to some only."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.organisation = organisation(name)
        self.mirror: SigningKey = self.organisation.mirror
        self.log: list[Envelope] = []
        self.only_for: dict[int, str] = {}
        self.heard: list[Event] = []
        self._numbers = itertools.count(1)
        self._version = 0
        world.speakers[name] = world.network.members[name] = self

    async def receive(self, event: Event) -> None:
        """It listens."""
        self.heard.append(event)

    def leaves(self, start: int, reader: str) -> list[bytes]:
        """Its log as it shows it to that reader: of what is for somebody else an unreadable line stands there."""
        numbered = enumerate(self.log[start:], start)
        return [envelope_json(one) if self.only_for.get(n, reader) == reader else b"{}" for n, one in numbered]

    def copies(self, start: int, reader: str) -> list[bytes]:
        """It keeps nobody's."""
        return []

    # Saying --------------------------------------------------------------------------------------------------------------

    def tell(self, envelope: Envelope, *, to: Iterable[str] = (), log: bool = True, room: bool = True) -> Event | None:
        """Makes it known: in its log, and in the room of its project (to those named, to everybody otherwise)."""
        if log:
            self.log.append(envelope)
        statement = read_statement(envelope.payload)
        predicate = statement.predicate
        if not room or isinstance(predicate, Review):
            return None
        project = predicate.about_project()
        slot = predicate.state_key(Keyid(envelope.signatures[0].keyid), statement.subjects)
        event = self.world.network.make(
            self.name,
            TRUST_ROOM if project is None else f"{PROJECT_ROOM}{project}",
            predicate.event_type(),
            {"v": 1, "dsse": envelope.to_json()},
            f"@pypi:{self.name}" if slot == OWNED else slot,
        )
        for receiver in tuple(to) or self.world.network.members:
            self.world.network.deliver(event, self.name, receiver)
        return event

    def sign(self, subjects: dict[str, str], predicate: Predicate, by: SigningKey | None = None) -> Envelope:
        """Anything, signed well."""
        return sign_statement({name: Sha256(told) for name, told in subjects.items()}, predicate, by or self.mirror)

    def manifest(self, *, revoked: Revoked | None = None, extra: Iterable[SigningKey] = (), **told: Any) -> Envelope:
        """Its next manifest; `revoked` is what becomes of its mirror key, `extra` are mirror keys beside it."""
        self._version += 1
        now, own = self.now, self.organisation
        listed = [
            ListedKey(key=own.log.public.hex(), scheme="ed25519", roles=("log", "witness"), added=now, revoked=None)
        ]
        for number, one in enumerate((own.mirror, *extra)):
            end = revoked if number == 0 else None
            roles = ("mirror", "watcher")
            listed.append(ListedKey(key=one.public.hex(), scheme="ed25519", roles=roles, added=now, revoked=end))
        fields: dict[str, Any] = {
            "org": self.name,
            "version": self._version,
            "issued": now,
            "expires": Instant(now + 90 * 86_400),
            "roots": (RootKey(key=own.root.public.hex(), scheme="ed25519"),),
            "threshold": 1,
            "keys": tuple(listed),
            "log": Log(origin=own.log_origin),
            "delegations": (),
        }
        name = self.name
        return self.sign({name: sha256_of(name.encode())}, Manifest(**(fields | told)), own.root)

    def attestation(self, dist: Dist, *, by: SigningKey | None = None, seq: int | None = None, **told: Any) -> Envelope:
        """That the file is these bytes."""
        signer = by or self.mirror
        project, version = project_and_version(FileName(dist.filename))
        fields: dict[str, Any] = {
            "signer": SignedBy(org=self.name, key=signer.keyid),
            "seq": seq or next(self._numbers),
            "prev": None,
            "issued": self.now,
            "project": project,
            "version": version,
            "size": dist.size,
            "source": Source(kind="pypi", method="bytes", serial=1),
            "expires": None,
        }
        return self.sign({dist.filename: dist.sha256}, Attestation(**(fields | told)), signer)

    def review(self, *dists: Dist, word: str = "ok") -> Envelope:
        """That it compared these digests with upstream."""
        verdicts: Any = tuple(word for _ in dists)
        predicate = Review(
            project=dists[0].project, index="pypi", verdicts=verdicts, serial=UNSET,
            signer=SignedBy(org=self.name, key=self.mirror.keyid), seq=next(self._numbers), prev=None, issued=self.now,
        )  # fmt: skip
        return self.sign({dist.filename: dist.sha256 for dist in dists}, predicate)

    def accusation(self, accused: Envelope, fault: Fault = Fault.PYPI_DIGEST, **shown: Any) -> Envelope:
        """That another's attestation is false."""
        statement = read_statement(accused.payload, Attestation)
        predicate = statement.predicate
        assert isinstance(predicate, Attestation)
        evidence: dict[str, Any] = {"envelopes": (accused.to_json(),)}
        if fault is Fault.PYPI_DIGEST:
            evidence |= {"sha256": sha256_of(b"made up"), "at": self.now}
        if fault is Fault.PYPI_ABSENT:
            evidence |= {"at": self.now}
        said = Refutation(
            fault=fault, project=predicate.project, file=statement.subject.name, accused=predicate.signer.key,
            observed=self.now, reporter=SignedBy(org=self.name, key=self.mirror.keyid),
            evidence=Evidence(**(evidence | shown)),
        )  # fmt: skip
        return self.sign({"attestation": statement.id}, said)

    def withdrawal(self, taken_back: Envelope) -> Envelope:
        """That it takes back what it attested."""
        statement = read_statement(taken_back.payload, Attestation)
        said = statement.predicate
        assert isinstance(said, Attestation)
        predicate = Withdrawal(
            project=said.project, version=said.version, file=statement.subject.name, reason="error", scope="file",
            signer=SignedBy(org=self.name, key=self.mirror.keyid), seq=next(self._numbers), prev=None, issued=self.now,
        )  # fmt: skip
        return self.sign({"attestation": statement.id}, predicate)

    def head(self, size: int, root: bytes) -> str:
        """A head of its log over whatever it likes."""
        return str(sign_checkpoint(Checkpoint(self.organisation.log_origin, size, root), self.organisation.log))

    def fork(self, size: int = 5) -> Envelope:
        """Somebody's accusation, by itself here, that carries two heads of one size."""
        notes = (self.head(size, bytes([1]) * 32), self.head(size, bytes([2]) * 32))
        said = Refutation(
            fault=Fault.LOG_FORK, project=None, file=None, accused=self.organisation.log.keyid, observed=self.now,
            reporter=SignedBy(org=self.name, key=self.mirror.keyid), evidence=Evidence(notes=notes),
        )  # fmt: skip
        return self.sign({"log": sha256_of(self.organisation.log_origin.encode())}, said)

    def other_key(self, number: int = 1) -> SigningKey:
        """A further key of its own."""
        return key(f"{self.name} mirror {number}")

    @property
    def now(self) -> Instant:
        """The time, as honest people have it."""
        return Instant.of_ms(self.world.clock.now_ms())

    def has_heard(self, org: str, file: str) -> bool:
        """Whether the organisation attested the file in a room."""
        sender, kind = f"@pypi:{org}", "io.matrix_pypi.attestation.v1"
        return any(
            (event["sender"], event["type"]) == (sender, kind) and event["state_key"].endswith(f"/{file}")
            for event in self.heard
        )

    def attestations_heard(self) -> list[Envelope]:
        """What others attested in rooms."""
        dsse = [event["content"].get("dsse") for event in self.heard if event["type"].endswith("attestation.v1")]
        return [read_envelope(one) for one in dsse if one]
