"""The environment of a local stack's processes: what is said to all organisations, and what to one of them.

`MATRIX_PYPI__INDEX__FRESH_SECONDS=60` is for all, `MATRIX_PYPI__ORGC__INDEX__FRESH_SECONDS=60` for orgc, before what is for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from matrix_pypi_bot.devstack.configs import OrgPlan, bot_tree, frontend_tree
from matrix_pypi_bot.process.settings import ENVIRONMENT_PREFIX, ConfigurationProblem

_OF_ONE: Final = {("database", "url"), ("index", "url"), ("trust", "file")}
"""What the stack chooses and one organisation may have otherwise: nobody else looks for it where the stack has put it."""


def environment_of(org: str, orgs: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """What the processes of `org`, one of `orgs`, are told."""
    prefixes = {name: _prefix(name) for name in orgs}
    common = {name: value for name, value in environ.items() if not name.startswith(tuple(prefixes.values()))}
    own = prefixes[org]
    return common | {
        f"{ENVIRONMENT_PREFIX}{name.removeprefix(own)}": value
        for name, value in environ.items()
        if name.startswith(own)
    }


def refuse_overrides(plan: OrgPlan, environ: Mapping[str, str]) -> None:
    """Raises ConfigurationProblem when the environment would move what the stack itself has put somewhere."""
    for tree in (bot_tree(plan), frontend_tree(plan)):
        for section, key in ((section, key) for section, keys in tree.items() for key in keys):
            name = f"{section}__{key}".upper()
            variables = [f"{ENVIRONMENT_PREFIX}{name}"]
            if (section, key) not in _OF_ONE:
                variables.append(f"{_prefix(plan.name)}{name}")
            for variable in variables:
                if variable in environ:
                    raise ConfigurationProblem(
                        f"the environment variable {variable} overrides what `matrix-pypi up` chooses itself",
                        hint="unset it; --home, --host, --port, --upstream and --database choose",
                    )


def _prefix(org: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{org.upper()}__"
