"""Which addresses the guarded client may ask: public ones, however they are spelled, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from matrix_pypi_bot.process.outbound import ForbiddenAddress, is_public, origin_of


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "255.255.255.255", "240.0.0.1", "224.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.9", "198.18.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    ],
)  # fmt: skip
def test_private_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["9.9.9.9", "151.101.0.223", "2620:fe::fe", "2a04:4e42::223", "::ffff:9.9.9.9", "64:ff9b::909:909"]
)
def test_addresses_that_the_internet_routes_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://index.example/simple/", "https://index.example:443"),
        ("http://index.example/simple/", "http://index.example:80"),
        ("https://INDEX.example:8443", "https://index.example:8443"),
        ("https://[2620:fe::fe]/x", "https://[2620:fe::fe]:443"),
    ],
)
def test_an_origin_always_has_its_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://index.example/", "file:///etc/passwd", "/simple/", "", "https:///x", "https://user@index.example/"),
        *("https://user:secret@index.example/", "https://:secret@index.example/", "https://index.example:99999/"),
        *("https://a:secret@index.example:x/?secret", "ssh://secret@index.example", "https://index.example:x/", "javascript:alert(1)", "http://[::1"),
    ],
)  # fmt: skip
def test_what_is_no_plain_http_address_has_no_origin(url: str) -> None:
    with pytest.raises(ForbiddenAddress) as caught:
        origin_of(url)
    assert "secret" not in caught.value.detail


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        origin = origin_of(text)
    except ForbiddenAddress as problem:
        assert problem.detail.isascii()
    else:
        assert URL(origin).scheme in ("http", "https")
