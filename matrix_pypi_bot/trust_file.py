"""The trust file: whom the operator believes. Written by a person, read once at the start, never learnt from Matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from msgspec import Meta, field

from matrix_pypi_bot.core.keyring import MAINTAINER_ORG, PinnedOrg
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.process.setting_types import Count, HttpUrl
from matrix_pypi_bot.process.settings import ConfigurationProblem, Section, load_settings
from matrix_pypi_bot.wire.names import InvalidName, ProjectName, normalise_project

EXAMPLE: Final = Path(__file__).with_name("example-trust.yaml")
KEY_PREFIX: Final = "ed25519:"
_KEY_DIGITS: Final = 64
_ORG_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)  # as in the configuration of its bot


class PublicKey(bytes):
    """A raw Ed25519 public key of 32 bytes, written `ed25519:<64 hex digits>`."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, checked."""
        digits = text.removeprefix(KEY_PREFIX)
        if len(digits) != _KEY_DIGITS or not set(digits) <= set("0123456789abcdef"):
            raise ValueError("expected a public key such as ed25519:<64 hex digits>; matrix-pypi keys show tells it")
        return cls(bytes.fromhex(digits))


class OrgSection(Section, frozen=True, kw_only=True):
    """An organisation under its name. `log` and `gateway` are opened as they are written, http and private addresses too."""

    root: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=64)]
    root_threshold: Count = 1
    roles: tuple[Literal["mirror", "watcher"], ...] = ("mirror", "watcher")
    log: HttpUrl | None = None
    gateway: HttpUrl | None = None
    user: Annotated[str, Meta(pattern="^@[!-9;-~]*:[!-~]+$", max_length=255)] | None = None

    def __post_init__(self) -> None:
        """A threshold that can never be reached would pin nobody, silently."""
        if self.root_threshold > len(set(self.root)):
            raise ValueError("root_threshold is above the number of root keys")


class PublisherSection(Section, frozen=True, kw_only=True):
    """A publisher's identity, as PEP 740 provenance names it."""

    issuer: Literal["github", "gitlab", "google", "circleci"]
    repository: Annotated[str, Meta(min_length=1, max_length=255)]
    workflow: Annotated[str, Meta(min_length=1, max_length=255)] | None = None

    @property
    def publisher(self) -> Publisher:
        """As a pin: without a workflow every one of the repository."""
        return Publisher(self.issuer, self.repository, self.workflow or "")


class MaintainersSection(Section, frozen=True, kw_only=True):
    """Who speaks for a project: keys that attest in its room, and publishers."""

    keys: tuple[PublicKey, ...] = ()
    sigstore: tuple[PublisherSection, ...] = ()


class TrustSections(Section, frozen=True, kw_only=True):
    """The file as it is written."""

    orgs: dict[str, OrgSection] = field(default_factory=dict)
    maintainers: dict[str, MaintainersSection] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trust:
    """What the file says. `maintainers` holds public keys in hex, as `core.keyring` wants them."""

    orgs: tuple[PinnedOrg, ...] = ()
    maintainers: Mapping[ProjectName, frozenset[str]] | None = None
    publishers: Mapping[ProjectName, tuple[Publisher, ...]] | None = None


def load_trust(path: Path, *, own: str) -> Trust:
    """The trust in `path`; `own` is the name of the organisation that reads it. Raises ConfigurationProblem."""
    sections = load_settings(path, TrustSections, environ={}, example=EXAMPLE)
    for name in sections.orgs:
        if not _ORG_NAME.fullmatch(name):
            raise ConfigurationProblem(f"{path}: orgs.{name}: an organisation's name is lower case, e.g. example.org")
        if name in (own, MAINTAINER_ORG):
            raise ConfigurationProblem(f"{path}: orgs.{name}: this is no name of another organisation")
    roots = [root for org in sections.orgs.values() for root in set(org.root)]
    if len(set(roots)) != len(roots):
        raise ConfigurationProblem(f"{path}: two organisations have the same root key: they would be one voice twice")
    maintainers = {_project(path, name): told for name, told in sections.maintainers.items()}
    return Trust(
        orgs=tuple(_pinned(name, org) for name, org in sections.orgs.items()),
        maintainers={name: frozenset(key.hex() for key in told.keys) for name, told in maintainers.items()},
        publishers={name: tuple(one.publisher for one in told.sigstore) for name, told in maintainers.items()},
    )


def _pinned(name: str, org: OrgSection) -> PinnedOrg:
    return PinnedOrg(
        name=name,
        roots=tuple(bytes(root) for root in org.root),
        threshold=org.root_threshold,
        roles=frozenset(org.roles),
        log_url=(org.log or "").rstrip("/"),
        gateway=(org.gateway or "").rstrip("/"),
        user=org.user or "",
    )


def _project(path: Path, name: str) -> ProjectName:
    try:
        return normalise_project(name)
    except InvalidName as error:
        raise ConfigurationProblem(f"{path}: maintainers: {error.detail}") from error
