"""Keyrings of organisations that tests make up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from matrix_pypi_bot.core.keyring import Keyring, Member, build_keyring
from matrix_pypi_bot.core.signers import Keys
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.services.keys import Organisation
from matrix_pypi_bot.services.members import Members


def own_keyring(organisation: Organisation, manifest: Manifest | None) -> Keyring:
    """The keys that are known while nobody else is pinned."""
    return build_keyring([Member(organisation.pinned, manifest)])


def known_members(keys: Keys, *, own: str = "home") -> Members:
    """`Members` as far as an intake asks them, for keys that no manifest lists."""
    return cast(Members, SimpleNamespace(keyring=SimpleNamespace(keys=keys), own=SimpleNamespace(name=own)))
