"""The trust pages as people see them, in a real browser, and `verify` against the running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.browser import browser
from tests.support.dists import wheel
from tests.support.organisations import Organisations
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
_BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def attested(stack: Stack, upstream: Upstream, name: str, version: str = "1.0") -> str:
    """A file that a client was given; its name once its attestation is in the log."""
    dist = wheel(name, version)
    upstream.publish(dist)
    assert stack.file(dist).body == dist.content

    def is_logged() -> bool:
        told = stack.get(f"/trust/{name}/{dist.filename}", Accept="application/json")
        return told.status == 200 and bool(told.json["log"]["proofs"])

    wait_until(is_logged, f"the attestation of {dist.filename} is proved by the log")
    return dist.filename


async def test_people_read_the_pages_on_a_phone_and_in_the_dark(
    stack: Stack, upstream: Upstream, name: str, tmp_path: Path
) -> None:
    file = attested(stack, upstream, name)
    async with browser(tmp_path / "browser") as tab:
        colours = set()
        for width, dark in ((1000, False), (375, True)):
            await tab.open(f"{stack.org.frontend}/trust/", width=width, dark=dark)
            assert not await tab.see(_TOO_WIDE)
            await tab.follow(f"{name}/")
            assert not await tab.see(_TOO_WIDE)
            await tab.follow(file)
            text = await tab.see("document.body.innerText")
            assert (await tab.see("document.title"), await tab.see(_TOO_WIDE)) == (f"{file}: Served", False)
            assert ("R8" in text, "attests these bytes" in text) == (True, True)
            colours.add(await tab.see(_BACKGROUND))
        assert len(colours) == 2, "the pages know a dark mode"
        asked = {urlsplit(url).netloc for url in tab.requested if not url.startswith("about:")}
        assert asked == {urlsplit(stack.org.frontend).netloc}
        assert [line for line in tab.complaints if "favicon" not in line and "404" not in line] == []


def test_a_client_verifies_what_it_is_about_to_install(
    stack: Stack, upstream: Upstream, name: str, tmp_path: Path
) -> None:
    file = attested(stack, upstream, name)
    digest = stack.get(f"/trust/{name}/{file}", Accept="application/json").json["sha256"]
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"{name}==1.0 --hash=sha256:{digest}\n")
    program = Path(sys.executable).with_name("matrix-pypi")
    command = [str(program), "verify", str(lock), "--home", str(stack.home), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (told,) = json.loads(done.stdout)["files"]
    assert (done.returncode, told["status"], told["orgs"], told["logged"]) == (0, "ok", ["orga"], ["orga"])
    lock.write_text(f"{name}==1.0 --hash=sha256:{'f' * 64}\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_two_organisations_that_attest_the_same_are_two_voices(three_orgs: Organisations, name: str) -> None:
    first, second, _ = three_orgs.members
    dist = wheel(name)
    three_orgs.upstream.publish(dist)
    for member in (first, second):
        assert member.file(dist).body == dist.content
    program = Path(sys.executable).with_name("matrix-pypi")
    command = [str(program), "verify", f"{name}==1.0", "--home", str(three_orgs.stack.home), "--json"]

    def verified() -> bool:
        done = subprocess.run([*command, "--quorum", "2", "--logged"], capture_output=True, text=True, check=False)
        return done.returncode == 0 and json.loads(done.stdout)["files"][0]["logged"] == ["orga", "orgb"]

    wait_until(verified, "two organisations' logs are proved to hold it")
    too_many = subprocess.run([*command, "--quorum", "3"], capture_output=True, text=True, check=False)
    assert (too_many.returncode, json.loads(too_many.stdout)["files"][0]["status"]) == (1, "unattested")
