"""The published vectors, answered by `matrix-pypi conformance`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from matrix_pypi_bot.conformance import answer, run
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import (
    Checkpoint,
    NoteKey,
    cosign,
    cosigned_at,
    is_signed_by,
    parse_checkpoint,
    parse_note,
    sign_checkpoint,
)
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.tlog import inclusion_proof, leaf_hash
from matrix_pypi_bot.wire.cids import PROFILES, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import sha256_of
from tests.support.cid_vectors import CIDS, counted

VECTORS = Path(__file__).parent / "vectors"
TRUST = json.loads((VECTORS / "trust_vectors.json").read_text())
DECISIONS = [json.loads(line) for line in (VECTORS / "decide_vectors.jsonl").read_text().splitlines()]
KEYS = {
    key["keyid"]: {name: key[name] for name in ("public", "org", "roles", "projects")}
    for key in TRUST["keys"].values()
    if key["trusted"]
}
QUICK_BYTES = 10 * 2**20
BLOCK = 1 << 20


@pytest.mark.parametrize("vector", TRUST["events"], ids=lambda vector: vector["name"])
def test_an_event_gets_its_code(vector: dict[str, Any]) -> None:
    request = {
        "op": "check_event",
        "event": vector["event"],
        "room_project": vector["room_project"],
        "keys": KEYS,
    }
    told = answer(request)
    assert told["result"] == vector["expect"]
    if vector["expect"] == "OK":
        payload = base64.b64decode(vector["event"]["content"]["dsse"]["payload"])
        assert told["id"] == hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize("vector", TRUST["equivocation"], ids=lambda vector: vector["name"])
def test_two_envelopes_are_judged(vector: dict[str, Any]) -> None:
    assert answer({"op": "equivocation", "a": vector["a"], "b": vector["b"], "keys": KEYS}) == {
        "result": vector["expect"]
    }


def test_a_statement_is_signed_to_the_byte() -> None:
    statement = json.loads(TRUST["statement_canonical"])
    signed = answer({"op": "sign", "statement": statement, "seed": TRUST["keys"]["orga"]["seed"]})
    assert signed == {"envelope": TRUST["envelope"], "id": TRUST["attestation_id"]}


@pytest.mark.parametrize("number", range(len(DECISIONS)))
def test_a_file_is_decided(number: int) -> None:
    vector = DECISIONS[number]
    assert answer({"op": "decide", **vector["in"]}) == vector["out"]


def _keystream(seed: str | None, size: int) -> Iterator[bytes]:
    """The data of IPIP-499's fixtures: a ChaCha20 key stream."""
    if seed is None:
        yield b"hello world"
        return
    stream = Cipher(ChaCha20(hashlib.sha256(seed.encode()).digest(), bytes(16)), mode=None).encryptor()
    for start in range(0, size, BLOCK):
        yield stream.update(bytes(min(BLOCK, size - start)))


def _slow_above(size: int) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.integration,) if size > QUICK_BYTES else ()


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=str(v["size"]), marks=_slow_above(v["size"])) for v in CIDS["vectors"]]
)
def test_a_file_has_its_cid_in_every_profile(vector: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.writelines(counted(vector["size"]))
    told = {profile: answer({"op": "cid", "path": str(path), "profile": profile}) for profile in vector["cids"]}
    assert told == {
        profile: {"cid": cid, "sha256": vector["sha256"], "size": vector["size"]}
        for profile, cid in vector["cids"].items()
    }


@pytest.mark.parametrize(
    "fixture",
    [
        pytest.param(v, id=f"{v['profile']}-{v['size']}", marks=_slow_above(v["size"]))
        for v in CIDS["ipip_0499_official_fixtures"]["vectors"]
    ],
)
def test_the_fixtures_of_the_standard_have_their_cids(fixture: dict[str, Any]) -> None:
    builder, digest = CidBuilder(PROFILES[fixture["profile"]]), hashlib.sha256()
    for chunk in _keystream(fixture["seed"], fixture["size"]):
        builder.update(chunk)
        digest.update(chunk)
    assert (builder.finish(), digest.hexdigest(), builder.size) == (
        fixture["cid"],
        fixture["sha256"],
        fixture["size"],
    )


def test_the_trap_differs_from_the_profile_above_174_mib() -> None:
    differing = {
        vector["size"]: vector["cids"]["v1-1m-174"] != vector["cids"]["unixfs-v1-2025"] for vector in CIDS["vectors"]
    }
    assert {size for size, differs in differing.items() if differs} == {s for s in differing if s > 174 * 2**20}


@pytest.mark.parametrize("vector", TRUST["cid"], ids=lambda vector: vector["bytes_hex"] or "empty")
def test_one_block_has_the_cid_that_its_digest_tells(vector: dict[str, str]) -> None:
    assert raw_cid(sha256_of(bytes.fromhex(vector["bytes_hex"]))) == vector["raw_cid"]


LOG = TRUST["log"]
LEAVES = [
    base64.b64encode(base64.b64decode(envelope["payload"])).decode()
    for envelope in (
        TRUST["envelope"],
        TRUST["equivocation"][0]["b"],
        TRUST["equivocation"][1]["b"],
    )
]


def test_the_log_of_three_leaves_has_its_root_and_proofs() -> None:
    hashes = [leaf_hash(base64.b64decode(leaf)) for leaf in LEAVES]
    assert [digest.hex() for digest in hashes] == LOG["leaf_hashes"]
    root = LOG["checkpoint3"].split("\n")[2]
    assert answer({"op": "log", "leaves": LEAVES, "m": 2}) == {"root": root, "consistency": LOG["consistency_2_3"]}
    assert [base64.b64encode(part).decode() for part in inclusion_proof(0, hashes)] == LOG["inclusion_0_3"]


@pytest.mark.parametrize("size", [2, 3])
def test_a_checkpoint_is_signed_to_the_byte(size: int) -> None:
    text = LOG[f"checkpoint{size}"]
    note = parse_note(text)
    head = parse_checkpoint(note.text)
    log, witness = (SigningKey(bytes.fromhex(LOG[name])) for name in ("log_seed", "witness_seed"))
    seen = NoteKey("orgb.example/witness", witness.public)
    signed = sign_checkpoint(Checkpoint(LOG["origin"], size, head.root), log)
    if size == 3:
        at = cosigned_at(note, seen)
        assert at == Instant.parse("2026-11-22T13:00:00Z")
        signed = signed.with_signature(cosign(signed, seen.name, witness, at))
    assert (str(signed), is_signed_by(note, NoteKey(LOG["origin"], log.public))) == (text, True)


def test_lines_are_answered_in_their_order() -> None:
    lines = ['{"op": "filename", "name": "a-1.tar.gz"}\n', "\n", "{", '{"op": "flux"}']
    assert [json.loads(line) for line in run(lines)] == [
        {"project": "a", "version": "1"},
        {"error": "not JSON: Input data was truncated"},
        {"error": "unknown op"},
    ]


KEY = {"public": TRUST["keys"]["orga"]["public"], "org": "orga", "roles": []}


@pytest.mark.parametrize(
    "request_",
    [
        None,
        [],
        {"op": "check_event"},
        {"op": "check_event", "event": {}, "room_project": 1, "keys": {}},
        {"op": "check_event", "event": {}, "room_project": "a", "keys": {"00": KEY}},
        {"op": "check_event", "event": {}, "room_project": "a", "keys": {"00": {**KEY, "public": "00"}}},
        {"op": "equivocation", "a": {}, "keys": {}},
        {"op": "sign", "statement": 1, "seed": "00" * 32},
        {"op": "sign", "statement": {"a": 1.5}, "seed": "00" * 32},
        {"op": "sign", "statement": {}, "seed": "00"},
        {"op": "decide", "upstream": "a", "mode": "kofm"},
        {"op": "decide", "upstream": "a", "mode": "self", "attested": [["a", 4]]},
        {"op": "cid", "path": "/", "profile": "unixfs-v1-2025"},
        {"op": "cid", "path": "a\0b", "profile": "unixfs-v1-2025"},
        {"op": "cid", "path": "/nowhere/at/all", "profile": "unixfs-v1-2025"},
        {"op": "cid", "path": "/", "profile": "unixfs-v3"},
        {"op": "filename", "name": 1},
        {"op": "log", "leaves": ["?"], "m": 0},
        {"op": "log", "leaves": [], "m": 1},
        {"op": "log", "leaves": [], "m": -1},
    ],
    ids=repr,
)
def test_a_malformed_request_is_answered_with_an_error(request_: object) -> None:
    assert set(answer(request_)) == {"error"}


def _nested(depth: int) -> str:
    return '{"op": "sign", "seed": "' + "00" * 32 + '", "statement": {"a": ' + "[" * depth + "]" * depth + "}}"


@pytest.mark.parametrize(
    "line",
    [_nested(200_000), '{"op": "\\ud800"}', "\ud800", "[" * 10_000, " " * (64 * 2**20) + "x"],
    ids=["deep", "surrogate", "raw surrogate", "brackets", "long"],
)
def test_a_line_from_a_fuzzer_is_answered_with_an_error(line: str) -> None:
    [told] = run([line])
    assert set(json.loads(told)) == {"error"}


def test_a_statement_too_deep_to_write_is_answered_with_an_error() -> None:
    statement: dict[str, Any] = {}
    for _ in range(5_000):
        statement = {"a": statement}
    assert set(answer({"op": "sign", "seed": "00" * 32, "statement": statement})) == {"error"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Zope.Interface-5.0.tar.gz", {"project": "zope-interface", "version": "5.0"}),
        ("a_b-1!2.0+local.1-py3-none-any.whl", {"project": "a-b", "version": "1!2.0+local.1"}),
        ("a-1.0.egg", {"error": "E_FILENAME"}),
        ("a-x.zip", {"error": "E_FILENAME"}),
        ("../a-1.0.zip", {"error": "E_FILENAME"}),
    ],
)
def test_a_file_name_tells_project_and_version(name: str, told: dict[str, str]) -> None:
    assert answer({"op": "filename", "name": name}) == told


def test_every_read_of_a_file_is_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    really: Callable[..., Any] = Path.open

    def counted(path: Path, *arguments: Any) -> Any:
        opened.append(path)
        return really(path, *arguments)

    (tmp_path / "f").write_bytes(b"hello\n")
    monkeypatch.setattr(Path, "open", counted)
    told = answer({"op": "cid", "path": str(tmp_path / "f"), "profile": "unixfs-v1-2025"})
    assert (told["cid"], len(opened)) == ("bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am", 1)
