"""What the handlers call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matrix_pypi_bot.ports import Clock, Store
from matrix_pypi_bot.services.announce import Peers
from matrix_pypi_bot.services.answers import Answers
from matrix_pypi_bot.services.attest import Attester
from matrix_pypi_bot.services.explain import Explainer
from matrix_pypi_bot.services.override import Overrides
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.relay import Relay
from matrix_pypi_bot.services.revoke import KeyDesk
from matrix_pypi_bot.wire.messages import Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases behind the API. `readiness()` names each part that has to be there and whether it is;
    `on_observed` hears of wrong bytes that frontends saw."""

    answers: Answers
    attester: Attester
    overrides: Overrides
    explainer: Explainer
    keys: KeyDesk
    relay: Relay
    peers: Peers
    projects: Projects
    store: Store
    clock: Clock
    readiness: Callable[[], Mapping[str, bool]]
    on_observed: Callable[[Observed], None] = lambda observed: None
