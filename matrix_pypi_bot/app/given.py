"""What the configuration gives: keys, tokens, whom to trust and the operator's policy, read once and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.adapters.matrix.side import MatrixSettings
from matrix_pypi_bot.adapters.provenance.fetch import HttpDocuments
from matrix_pypi_bot.config import Settings
from matrix_pypi_bot.core.cooldown import Cooldown
from matrix_pypi_bot.core.evidence import Mode, Terms
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.policy import NameRules
from matrix_pypi_bot.core.provenance import ProvenancePolicy
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.ports import Clock, Store, Verifier
from matrix_pypi_bot.process.outbound import Outbound
from matrix_pypi_bot.process.secret_files import put_away_seeds, read_secret, read_seed
from matrix_pypi_bot.services.keys import Organisation
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.provenance import Provenance
from matrix_pypi_bot.services.rule import Rulebook
from matrix_pypi_bot.trust_file import Trust, load_trust
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

_KEY_HINT: Final = "matrix-pypi keys new-org -c <this configuration> makes it"
_REGISTRATION_HINT: Final = "matrix-pypi registration -c <this configuration> -o registration.yaml makes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """All of it, with the database and the clock. `verifier` None: provenance is passed on, not verified."""

    settings: Settings
    organisation: Organisation
    matrix: MatrixSettings
    trust: Trust
    verifier: Verifier | None
    store: Store
    clock: Clock

    @property
    def log_key(self) -> NoteKey:
        """The key of the organisation's log, under the log's name."""
        return NoteKey(self.organisation.log_origin, self.organisation.log.public)


def organisation_of(settings: Settings) -> Organisation:
    """Who signs. Raises Problem (CONFIGURATION) for keys that cannot be used."""
    organisation = settings.organisation
    made = Organisation(
        organisation.name,
        root=SigningKey(read_seed(organisation.root_key_file, hint=_KEY_HINT)),
        mirror=SigningKey(read_seed(organisation.mirror_key_file, hint=_KEY_HINT)),
        log=SigningKey(read_seed(organisation.log_key, hint=_KEY_HINT)),
        former_roots=tuple(map(SigningKey, put_away_seeds(organisation.root_key_file))),
    )
    if len({made.root.keyid, made.mirror.keyid, made.log.keyid}) < 3:
        raise Problem(
            "two of the organisation's keys are the same key",
            hint="root, mirror and log key are three keys; matrix-pypi keys show -c <this configuration> tells which are the same",
            code=ProblemCode.CONFIGURATION,
        )
    return made


def matrix_of(settings: Settings) -> MatrixSettings:
    """What Matrix needs, its tokens read. Raises Problem for a token file that cannot be used."""
    appservice = settings.appservice
    return MatrixSettings(
        address=settings.homeserver.address,
        server_name=settings.homeserver.server_name,
        host=appservice.host,
        port=appservice.port,
        id=appservice.id,
        bot_localpart=appservice.bot_localpart,
        as_token=read_secret(appservice.as_token_file, hint=_REGISTRATION_HINT),
        hs_token=read_secret(appservice.hs_token_file, hint=_REGISTRATION_HINT),
        max_body_bytes=appservice.max_body_bytes,
        max_created_per_minute=settings.rooms.max_created_per_minute,
        reconcile_seconds=settings.rooms.reconcile_seconds,
    )


def _provenance_policy(given: Given) -> ProvenancePolicy | None:
    settings = given.settings
    if given.verifier is None:
        return None
    return ProvenancePolicy(
        root=given.verifier.root,
        quarantine=settings.policy.publisher_change == "quarantine",
        pins=given.trust.publishers or {},
        served_at=(settings.provenance.served_at or "").rstrip("/"),
    )


def trust_of(settings: Settings) -> Trust:
    """Whom the operator pinned. Raises ConfigurationProblem for a trust file that cannot be used."""
    file = settings.trust.file
    return Trust() if file is None else load_trust(file, own=settings.organisation.name)


def rulebook_of(given: Given, members: Members) -> Rulebook:
    """The operator's policy, over whoever is believed."""
    policy = given.settings.policy
    return Rulebook(
        Terms(mode=Mode(policy.offline), keep_removed=policy.removed_upstream == "keep"),
        [denied.denial() for denied in policy.deny],
        names=NameRules(allow_only=policy.allow_only, reserved=policy.reserved),
        cooldown=Cooldown(
            seconds=policy.cooldown_seconds, exemptions=tuple(exempt.exemption() for exempt in policy.cooldown_exempt)
        ),
        standing=members.standing,
        provenance=_provenance_policy(given),
    )


def provenance_of(given: Given, projects: Projects, outbound: Outbound) -> Provenance | None:
    """Who looks at provenance; None when it is only passed on."""
    settings = given.settings.provenance
    if given.verifier is None:
        return None
    return Provenance(
        projects=projects,
        store=given.store,
        clock=given.clock,
        documents=HttpDocuments(outbound, timeout_seconds=settings.fetch_timeout_seconds),
        verifier=given.verifier,
        retry_seconds=settings.retry_seconds,
    )
