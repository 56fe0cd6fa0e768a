"""How the organisations of one local stack know each other: every one pins all the others, by a `trust.yaml` of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.devstack.configs import BOT_LOCALPART, OrgPlan, to_yaml
from matrix_pypi_bot.process.secret_files import read_seed, write_private

_HEADER: Final = (
    "# Whom this organisation pins. Written by `matrix-pypi up` at every start: changes here are lost.\n"
    "# Have another file read instead: MATRIX_PYPI__{org}__TRUST__FILE=/path/to/trust.yaml\n"
)


def write_trust(plan: OrgPlan, others: Iterable[OrgPlan]) -> None:
    """Write whom the organisation pins: the `others`, whose root keys are there."""
    tree = {"orgs": {other.name: pin_of(other) for other in others}}
    write_private(plan.home.trust, to_yaml(tree, header=_HEADER.format(org=plan.name.upper())))


def pin_of(plan: OrgPlan) -> dict[str, Any]:
    """What others know an organisation by: its root key, where its log and its gateway answer, and its bot's user id.

    Addresses that are named here may be on loopback; what an organisation announces of itself may not.
    """
    root = SigningKey(read_seed(plan.home.secret("root_key"), hint="restore it from a copy"))
    return {
        "root": [f"ed25519:{root.public.hex()}"],
        "log": f"{plan.frontend_url}/log/v1",
        "gateway": plan.frontend_url,
        "user": f"@{BOT_LOCALPART}:{plan.ports.server_name}",
    }
