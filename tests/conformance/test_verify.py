"""`matrix-pypi verify` against a mirror that answers truly, and against one that does not (scenario 40)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.cli import main, mirrors
from matrix_pypi_bot.core.publisher import Publisher
from tests.support.bot_world import ONE, OTHER_ONE, TWO, ManualClock, ScriptedIndex, World
from tests.support.fake_sigstore import FakeSigstore
from tests.support.mirror_site import MirrorSite, mirror_site
from tests.support.trust_world import ROOT_KEY, TrustWorld, trust_world

PAGE, PROJECT = "/simple/mxa/", "/trust/mxa/"
FILE = f"/trust/mxa/{ONE.filename}"


@pytest.fixture
async def trusted(tmp_path: Path) -> AsyncIterator[TrustWorld]:
    """A bot whose clock is that of this machine, that attested one file of two."""
    import time

    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        world = World(store, ScriptedIndex(), ManualClock(int(time.time() * 1_000)))
        await world.start()
        async with trust_world(world) as served:
            await world.mirror(ONE, TWO, stored=[ONE])
            await world.settled()
            await served.keeper.sign_if_due()
            yield served
        await world.stop()


@pytest.fixture
async def site(trusted: TrustWorld) -> AsyncIterator[MirrorSite]:
    async with mirror_site(trusted, ONE, TWO) as started:
        yield started


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    """A trust file that pins the mirror's organisation."""
    file = tmp_path / "trust.yaml"
    file.write_text(f'orgs: {{orga: {{root: ["ed25519:{ROOT_KEY.public.hex()}"]}}}}\n')
    return file


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Requirements that accept the attested file."""
    file = tmp_path / "requirements.txt"
    file.write_text(f"mxa==1.0 --hash=sha256:{ONE.sha256}\n")
    return file


async def verify(*arguments: str | Path) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, ["verify", *map(str, arguments)])


async def told(*arguments: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((await verify(*arguments, "--json")).stdout)["files"]
    return found


async def test_a_lock_whose_bytes_are_attested_is_verified(site: MirrorSite, trust: Path, lock: Path) -> None:
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, found.stdout.splitlines()) == (
        0,
        [f"ok  {ONE.filename}  orga; in the log of orga", "1 ok"],
    )
    assert ONE.path in site.asked


async def test_a_script_gets_json(site: MirrorSite, trust: Path, lock: Path) -> None:
    (one,) = await told(lock, "--from", site.address, "--trust", trust)
    assert (one["file"], one["sha256"], one["status"], one["orgs"], one["logged"]) == (
        ONE.filename,
        [ONE.sha256],
        "ok",
        ["orga"],
        ["orga"],
    )


@pytest.mark.parametrize("kind", ["pylock.toml", "uv.lock"])
async def test_other_lock_files_name_their_files(site: MirrorSite, trust: Path, tmp_path: Path, kind: str) -> None:
    lock = tmp_path / kind
    url = f"https://files.example/{ONE.filename}"
    lock.write_text(
        f'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "mxa"\nversion = "1.0"\n'
        f'wheels = [{{name = "{ONE.filename}", url = "{url}", hashes = {{sha256 = "{ONE.sha256}"}}}}]\n'
        if kind == "pylock.toml"
        else '[[package]]\nname = "mxa"\nversion = "1.0"\nsource = { registry = "https://index.example/simple" }\n'
        f'wheels = [{{ url = "{url}", hash = "sha256:{ONE.sha256}" }}]\n'
    )
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (0, "1 ok")


async def test_a_release_is_named_by_its_version(site: MirrorSite, trust: Path) -> None:
    good = await verify("MXA==1.0", "--from", site.address, "--trust", trust)
    unattested = await verify("mxa==2.0", "--from", site.address, "--trust", trust)
    unknown = await verify("mxb==2.0", "--from", site.address, "--trust", trust)
    assert [good.exit_code, unattested.exit_code, unknown.exit_code] == [0, 1, 1]
    assert "nobody pinned attests these bytes" in unattested.stdout
    assert "no mirror lists a file of this version" in unknown.stdout


async def test_every_hash_is_asked_for(site: MirrorSite, trust: Path, lock: Path) -> None:
    lock.write_text(f"mxa==1.0 --hash=sha256:{ONE.sha256} --hash=sha256:{'f' * 64}\n")
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (1, "1 ok, 1 unattested")
    assert (await verify(lock, "--from", site.address, "--trust", trust, "--allow-unattested")).exit_code == 0


async def test_swapped_bytes_are_noticed(site: MirrorSite, trust: Path, lock: Path) -> None:
    site.lies[ONE.path] = (200, OTHER_ONE.content)
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (1, "1 contradicted")
    assert f"sends other bytes, {OTHER_ONE.sha256[:12]}" in found.stdout
    assert (await verify(lock, "--from", site.address, "--trust", trust, "--no-bytes")).exit_code == 0


async def test_a_page_with_another_digest_is_noticed(site: MirrorSite, trust: Path, lock: Path) -> None:
    listing = {"files": [{"filename": ONE.filename, "url": f"..{ONE.path}", "hashes": {"sha256": OTHER_ONE.sha256}}]}
    site.lies[PAGE] = (200, json.dumps(listing).encode())
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, f"lists other bytes, {OTHER_ONE.sha256[:12]}" in found.stdout) == (1, True)


async def test_a_lock_made_from_a_lie_is_contradicted(site: MirrorSite, trust: Path, lock: Path) -> None:
    lock.write_text(f"mxa==1.0 --hash=sha256:{OTHER_ONE.sha256}\n")
    listing = {"files": [{"filename": ONE.filename, "url": f"../..{ONE.path}", "hashes": {"sha256": OTHER_ONE.sha256}}]}
    site.lies |= {PAGE: (200, json.dumps(listing).encode()), ONE.path: (200, OTHER_ONE.content)}
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, found.stdout.splitlines()) == (
        1,
        [f"contradicted  {ONE.filename}  orga attests {ONE.sha256[:12]}", "1 contradicted"],
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"org": 1}', b"\xff"])
async def test_a_page_that_makes_no_sense_is_a_lie(site: MirrorSite, trust: Path, lock: Path, body: bytes) -> None:
    site.lies[FILE] = (200, body)
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, "its answer makes no sense" in found.stdout) == (1, True)


async def test_the_page_of_another_file_is_a_lie(
    site: MirrorSite, trust: Path, lock: Path, trusted: TrustWorld
) -> None:
    site.lies[FILE] = (200, (await trusted.json(f"/trust/mxa/{TWO.filename}")).body)
    found = await verify(lock, "--from", site.address, "--trust", trust)
    assert (found.exit_code, "its trust page is that of another file" in found.stdout) == (1, True)


async def test_statements_that_are_hidden_leave_a_file_unattested(site: MirrorSite, trust: Path, lock: Path) -> None:
    site.lies[FILE] = (404, b"")
    assert (await told(lock, "--from", site.address, "--trust", trust))[0]["status"] == "unattested"


async def test_a_second_mirror_shows_what_the_first_hides(
    site: MirrorSite, trust: Path, lock: Path, trusted: TrustWorld
) -> None:
    site.lies |= {FILE: (404, b""), PROJECT: (404, b"")}
    async with mirror_site(trusted, ONE) as other:
        honest = await verify(lock, "--from", site.address, "--from", other.address, "--trust", trust)
        site.lies[ONE.path] = (200, OTHER_ONE.content)
        lying = await verify(lock, "--from", site.address, "--from", other.address, "--trust", trust)
    assert [honest.exit_code, lying.exit_code] == [0, 1]


async def test_provenance_is_verified_under_the_root_that_is_named(
    site: MirrorSite, trust: Path, lock: Path, tmp_path: Path
) -> None:
    sigstore, root = FakeSigstore(), tmp_path / "trusted_root.json"
    root.write_bytes(sigstore.trusted_root())
    publisher, path = Publisher("github", "mxa/mxa", "release.yml"), f"/provenance/mxa/{ONE.filename}"
    asked = (lock, "--from", site.address, "--trust", trust, "--trusted-root", root)
    site.lies[path] = (200, sigstore.provenance(publisher, ONE.filename, ONE.sha256))
    good = await verify(*asked)
    assert (good.exit_code, "published by github mxa/mxa (release.yml)" in good.stdout) == (0, True)
    for body, why in (
        (sigstore.provenance(publisher, ONE.filename, OTHER_ONE.sha256), "its publisher signed"),
        (FakeSigstore("forger").provenance(publisher, ONE.filename, ONE.sha256), ""),
        (b"{", "its provenance is none"),
        (b"x" * (1 << 20), "too large"),
    ):
        site.lies[path] = (200, body)
        found = await verify(*asked)
        assert (why in found.stdout, "published by" in found.stdout) == (True, False)
        assert found.exit_code == (1 if why else 0), "another Sigstore's documents say nothing under this root"
    assert (await verify(*asked[:-1], tmp_path / "nothing")).exit_code == 3


async def test_one_mirror_that_is_away_is_a_warning_and_all_are_the_end(
    site: MirrorSite, trust: Path, lock: Path
) -> None:
    away = "http://127.0.0.1:1"
    one = await verify(lock, "--from", away, "--from", site.address, "--trust", trust)
    everybody = await verify(lock, "--from", away, "--trust", trust)
    assert (one.exit_code, f"warning: {away} does not answer" in one.stderr) == (0, True)
    assert (everybody.exit_code, f"error: {away} does not answer" in everybody.stderr) == (4, True)


@pytest.mark.parametrize("head", [b"Content-Length: 90000\r\n\r\nxx", b"X-Slow: "])
async def test_an_answer_that_breaks_off_or_never_ends_is_none_and_no_lie(
    head: bytes, site: MirrorSite, trust: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "PAGE_SECONDS", 0.2)

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        with suppress(ConnectionError):
            while not head.endswith(b"xx"):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(dribble, "127.0.0.1", 0) as server:
        slow = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(20):
            result = await verify(lock, "--from", slow, "--from", site.address, "--trust", trust)
    assert (result.exit_code, result.stdout.split()[0]) == (0, "ok")
    assert f"warning: {slow} does not answer" in result.stderr


async def test_who_is_not_pinned_is_not_believed(site: MirrorSite, lock: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f'orgs: {{orgx: {{root: ["ed25519:{ROOT_KEY.public.hex()}"]}}}}\n')
    found = await verify(lock, "--from", site.address, "--trust", other)
    assert (found.exit_code, "nobody pinned" in found.stdout) == (1, True)


async def test_a_local_stack_is_asked_without_further_words(
    site: MirrorSite, lock: Path, trusted: TrustWorld, tmp_path: Path
) -> None:
    home, example = tmp_path / "home", Path(__file__).parents[2] / "matrix_pypi_bot/example-config.yaml"
    (home / "secrets").mkdir(parents=True)
    config = home / "config.yaml"
    config.write_text(example.read_text().replace("name: example", "name: orga"))
    (home / "secrets" / "root_key").write_text("07" * 32)
    (home / "stack.json").write_text(json.dumps({"orgs": [{"config_file": str(config), "frontend": site.address}]}))
    found = await verify(lock, "--home", home)
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (0, "1 ok")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nothing.txt"], 2),
        ([], 2),
        (["mxa==1.0", "--from", "mirror.example"], 2),
        (["mxa==1.0", "--from", "http://127.0.0.1:1", "--trust", "nothing.yaml"], 3),
        (["mxa==1.0", "--home", "/nowhere"], 4),
    ],
)
async def test_what_is_asked_wrongly_is_told_by_its_exit_code(arguments: list[str], code: int) -> None:
    assert (await verify(*arguments)).exit_code == code


async def test_an_empty_lock_and_an_empty_trust_verify_nothing(site: MirrorSite, lock: Path, trust: Path) -> None:
    empty = lock.with_name("empty.txt")
    empty.write_text("# nothing\n")
    assert (await verify(empty, "--from", site.address, "--trust", trust)).exit_code == 2
    trust.write_text("orgs: {}\n")
    assert (await verify(lock, "--from", site.address, "--trust", trust)).exit_code == 3
