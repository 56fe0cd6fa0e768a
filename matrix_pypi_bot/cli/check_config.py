"""`matrix-pypi check-config`: what is wrong before the bot says it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matrix_pypi_bot.cli.options import config_option

if TYPE_CHECKING:
    from matrix_pypi_bot.config import PolicySettings, ProvenanceSettings


@click.command()
@config_option
def command(config: Path) -> None:
    """Parse the configuration, look at the secrets it names, and say what is wrong.

    Exit code 3 when something is.
    """
    from matrix_pypi_bot.adapters.provenance.root import open_verifier
    from matrix_pypi_bot.config import load, read_secrets
    from matrix_pypi_bot.trust_file import Trust, load_trust

    settings = load(config)
    read_secrets(settings)
    root_file = settings.provenance.trusted_root_file
    verifier = open_verifier(root_file)
    file = settings.trust.file
    trust = Trust() if file is None else load_trust(file, own=settings.organisation.name)
    click.echo(f"{config} is right: {settings.bot_mxid} for the organisation {settings.organisation.name}")
    click.echo(f"  homeserver  {settings.homeserver.address}, delivers to {settings.appservice.public_url}")
    click.echo(f"  index       {settings.index.name}, {'attested' if settings.index.attests else 'not attested'}")
    click.echo(f"  policy      {_policy(settings.policy)}")
    click.echo(f"  trusts      {', '.join(org.name for org in trust.orgs) or 'nobody else'}")
    if verifier is None:
        click.echo("  provenance  passed on, not verified: there is no provenance.trusted_root_file")
    else:
        click.echo(f"  provenance  verified under {root_file}{_age(settings.provenance)}")
    click.echo(f"  API         {settings.api.listen}")
    click.echo(f"  public      {settings.public.listen}")


def _age(settings: ProvenanceSettings) -> str:
    """A warning about an old root file, empty for a young one."""
    from matrix_pypi_bot.adapters.clock import SystemClock
    from matrix_pypi_bot.adapters.provenance.root import age_days

    assert settings.trusted_root_file is not None, "it was opened"
    days = age_days(settings.trusted_root_file, SystemClock().now_ms())
    if days <= settings.root_age_days:
        return ""
    return f"\n              WARNING: written {days:.0f} days ago; write it anew: matrix-pypi trusted-root"


def _policy(policy: PolicySettings) -> str:
    """What is in force, and which entries have ended and can go."""
    from matrix_pypi_bot.adapters.clock import SystemClock

    now_ms = SystemClock().now_ms()
    parts = [f"cooldown {policy.cooldown_seconds:g} s" if policy.cooldown_seconds else "no cooldown"]
    parts += [f"{len(policy.deny)} denied"] if policy.deny else []
    parts += [f"{len(policy.allow_only)} allowed and no other project"] if policy.allow_only else []
    parts += [f"reserved: {', '.join(policy.reserved)}"] if policy.reserved else []
    ends = [(f"deny[{number}] ({entry.project})", entry.until) for number, entry in enumerate(policy.deny)]
    exempt = enumerate(policy.cooldown_exempt)
    ends += [(f"cooldown_exempt[{number}] ({entry.project})", entry.until) for number, entry in exempt]
    parts += [f"{name} has ended and can go" for name, until in ends if until is not None and until <= now_ms]
    return ", ".join(parts)
