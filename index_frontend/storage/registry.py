"""From a section of the configuration to a backend: plug-ins, found by their entry points, loaded when one is named."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.inspect import StructType, type_info

from index_frontend.storage.api import API_VERSION, ENTRY_POINTS, Misconfigured, StorageBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.problems import clean_line

TYPE: Final = "type"
COPIES: Final = "copies"
"""Whether what clients were given is copied there; the keys that are ours, not a plug-in's."""

S = TypeVar("S")


def make_backends(
    sections: Mapping[str, Mapping[str, Any]], plugins: Iterable[EntryPoint] | None = None
) -> dict[str, Verified]:
    """The backends of the section `backends`, checked, not opened. Raises Misconfigured, which names the backend and the key."""
    found = tuple(installed() if plugins is None else plugins)
    return {name: make_backend(name, section, found) for name, section in sections.items()}


def make_backend(name: str, section: Mapping[str, Any], plugins: Iterable[EntryPoint]) -> Verified:
    """One of them. Raises Misconfigured."""
    kind = section.get(TYPE)
    if not isinstance(kind, str):
        hint = _nearest("", {plugin.name for plugin in plugins})
        raise Misconfigured("the key type is missing: it says what is kept there", backend=name, key=TYPE, hint=hint)
    factory = _factory(name, kind, plugins)
    try:
        backend = factory(name, {key: value for key, value in section.items() if key not in (TYPE, COPIES)})
    except Misconfigured:
        raise
    except Exception as error:
        told = clean_line(f"{type(error).__name__}: {error}", 200)
        raise Misconfigured(f"the plug-in {kind} cannot use its section: {told}", backend=name) from error
    if not isinstance(backend, StorageBackend):
        raise Misconfigured(f"the plug-in {kind} made something that is no storage backend", backend=name, key=TYPE)
    _refuse_version(name, kind, backend)
    if not isinstance(section.get(COPIES, True), bool):
        raise Misconfigured("copies is true or false", backend=name, key=COPIES)
    return Verified(backend)


def installed() -> tuple[EntryPoint, ...]:
    """Every plug-in of this Python, ours among them; none is loaded."""
    return tuple(entry_points(group=ENTRY_POINTS))


def read_section(kind: type[S], section: Mapping[str, Any], *, backend: str) -> S:
    """A plug-in's section as its settings, a msgspec Struct. Raises Misconfigured for an unknown key, a missing one, a wrong value.

    Values of the classes in `process.setting_types`, and Paths, are made of their strings.
    """
    info = type_info(kind)
    assert isinstance(info, StructType)
    known = [field.encode_name for field in info.fields]
    for key in section:
        if key not in known:
            hint = _nearest(str(key), known)
            raise Misconfigured(f"unknown key {clean_line(str(key), 60)}", backend=backend, key=str(key), hint=hint)
    try:
        return msgspec.convert(dict(section), kind, dec_hook=_from_string)
    except msgspec.ValidationError as error:
        text, _, place = clean_line(str(error)).replace("`", "").partition(" - at $.")
        key = place.partition(".")[0].partition("[")[0]
        said = (
            f"{key}: {text[:1].lower()}{text[1:]}" if key else text.replace("Object missing required field", "missing:")
        )
        raise Misconfigured(said, backend=backend, key=key) from error


def _from_string(kind: Any, value: object) -> object:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    return Path(value) if kind is Path else kind.from_setting(value, Path.cwd())


def _factory(name: str, kind: str, plugins: Iterable[EntryPoint]) -> Callable[[str, Mapping[str, Any]], object]:
    named = [plugin for plugin in plugins if plugin.name == kind]
    if not named:
        hint = _nearest(kind, {plugin.name for plugin in plugins})
        raise Misconfigured(f"no storage plug-in is called {clean_line(kind, 60)}", backend=name, key=TYPE, hint=hint)
    if len(named) > 1:
        makers = ", ".join(sorted(f"{plugin.dist.name if plugin.dist else '?'} ({plugin.value})" for plugin in named))
        raise Misconfigured(
            f"more than one storage plug-in is called {kind}: {makers}",
            backend=name,
            key=TYPE,
            hint="uninstall all but one",
        )
    try:
        factory = named[0].load()
    except Exception as error:
        told = clean_line(f"{type(error).__name__}: {error}", 200)
        raise Misconfigured(f"the plug-in {kind} cannot be loaded: {told}", backend=name, key=TYPE) from error
    _refuse_version(name, kind, factory)
    if not callable(factory):
        raise Misconfigured(f"the plug-in {kind} is nothing that can be called", backend=name, key=TYPE)
    return factory  # type: ignore[no-any-return]  # what it makes is looked at


def _refuse_version(name: str, kind: str, made: object) -> None:
    version = getattr(made, "api_version", API_VERSION)
    if version != API_VERSION:
        raise Misconfigured(
            f"the plug-in {kind} is made for version {version} of the storage interface, this is version {API_VERSION}",
            backend=name,
            key=TYPE,
            hint="install another version of the plug-in",
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are: {', '.join(names)}" if names else ""
