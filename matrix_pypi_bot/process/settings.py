"""Settings: a YAML file and the environment, parsed once into frozen structs.

A key that is not known is refused with the nearest one that is, a wrong value with its key, file and line. Every key can be
overridden by the environment: `MATRIX_PYPI__INDEX__FRESH_SECONDS=2` is `index.fresh_seconds`. Both processes share the prefix, so
that one environment fits both; an override of the other process' section is left alone, one of no section at all is refused.
Secrets are never values: keys that end in `_file` name the files that hold them. Relative paths are relative to the file they
stand in (those from the environment too).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.inspect import (
    CustomType,
    DictType,
    Field,
    LiteralType,
    StrType,
    StructType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)

from matrix_pypi_bot.process.secret_files import create_secret, read_secret
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

__all__ = [
    "ENVIRONMENT_PREFIX",
    "ConfigurationProblem",
    "Section",
    "create_secret",
    "load_settings",
    "place_of",
    "read_secret",
]

ENVIRONMENT_PREFIX: Final = "MATRIX_PYPI__"
MAX_FILE_BYTES: Final = 1 << 20  # a configuration is a few kilobytes; this only keeps a wrong `-c` from eating memory

KeyPath = tuple[str | int, ...]
S = TypeVar("S", bound="Section")

_KEY_IN_PATH: Final = re.compile(r"\.(\w+)|\[(\d+)\]")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The root of every settings class. Fields are Sections, numbers, strings, `Path`s (made absolute), tuples of these, and
    mappings whose keys are the operator's own names."""


class ConfigurationProblem(Problem):
    """A configuration that cannot be used; says where it is wrong."""

    code = ProblemCode.CONFIGURATION


def load_settings(
    path: Path,
    kind: type[S],
    *,
    environ: Mapping[str, str] = os.environ,
    foreign_sections: Iterable[str] = (),
    example: Path | None = None,
) -> S:
    """The settings in `path`, with the overrides of `environ`.

    `foreign_sections` are top-level names whose overrides belong to another process; `example` is named in the hint when
    there is no such file. Raises ConfigurationProblem.
    """
    source = _Source(path, _read(path, example))
    info = type_info(kind)
    assert isinstance(info, StructType)
    tree = source.parse()
    for section in info.fields:
        if isinstance(section.type, StructType | DictType) and tree.get(section.name, "") is None:
            tree[section.name] = {}  # `logging:` with every key commented out means its defaults
    _refuse_unknown(tree, info, (), source)
    source.override(tree, info, environ, frozenset(foreign_sections))
    try:
        return msgspec.convert(tree, kind, dec_hook=_from_string(path.parent.absolute()))
    except msgspec.ValidationError as error:
        raise source.wrong_value(str(error), info) from error


def place_of(path: Path, keys: KeyPath) -> str:
    """E.g. `config.yaml, line 12: backends.office.url`, for whoever finds a value wrong that was right as far as its type goes."""
    return _Source(path, _read(path, None)).where(keys)


class _Source:
    """Where values came from, so that a complaint can say so. Lines are only looked up when there is a complaint."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._variables: dict[KeyPath, str] = {}

    def parse(self) -> dict[str, Any]:
        """The file as plain data. Raises ConfigurationProblem unless it is one YAML mapping."""
        from ruamel.yaml.error import MarkedYAMLError, YAMLError  # slow to import: only where a file is read

        try:
            tree = _yaml().load(self._text)
        except MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise ConfigurationProblem(f"{self._path}{line}: {clean_line(str(error.problem))}") from error
        except (YAMLError, ValueError, RecursionError) as error:
            raise ConfigurationProblem(f"{self._path} is not YAML: {clean_line(str(error))}") from error
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            raise ConfigurationProblem(f"{self._path} is not a mapping of sections")
        return tree

    def override(
        self, tree: dict[str, Any], info: StructType, environ: Mapping[str, str], foreign_sections: frozenset[str]
    ) -> None:
        """Put what `environ` says into `tree`."""
        for variable in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX)):
            keys = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            if keys[0] in foreign_sections and keys[0] not in {field.name for field in info.fields}:
                continue
            leaf = _leaf(info, keys, variable)
            target = tree
            for key in keys[:-1]:
                child = target.get(key)
                if not isinstance(child, dict):
                    child = target[key] = {}
                target = child
            target[keys[-1]] = _environment_value(environ[variable], leaf.type)
            self._variables[keys] = variable

    def where(self, keys: KeyPath) -> str:
        """E.g. `config.yaml, line 12: index.fresh_seconds`, or the variable that set it."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self._variables:
                return f"the environment variable {self._variables[keys[:length]]}"
        line = self._line(keys)
        return f"{self._path}{f', line {line}' if line else ''}: {_dotted(keys)}" if keys else str(self._path)

    def _line(self, keys: KeyPath) -> int | None:
        """The line of the last of `keys` that is there, from 1."""
        node, line = _yaml().compose(self._text), None
        for key in keys:
            children = node.value if node is not None and isinstance(node.value, list) else []
            if isinstance(key, int):
                found = children[key : key + 1]
                node = found[0] if found else None
                mark = node.start_mark if node is not None else None
            else:
                pairs = [pair for pair in children if isinstance(pair, tuple) and pair[0].value == key]
                node, mark = (pairs[0][1], pairs[0][0].start_mark) if pairs else (None, None)
            if mark is None:
                break
            line = mark.line + 1
        return line

    def wrong_value(self, error: str, info: StructType) -> ConfigurationProblem:
        """msgspec's sentence (`Expected `int`, got `str` - at `$.index.fresh_seconds``) in the words of a configuration."""
        text, _, place = error.partition(" - at `$")
        keys: KeyPath = tuple(name or int(index) for name, index in _KEY_IN_PATH.findall(place))
        text = text.replace("`object`", "a section with keys").replace("`", "").replace("null", "nothing")
        hint = ""
        if missing := re.fullmatch(r"Object missing required field (\w+)", text):
            return ConfigurationProblem(f"{self.where(keys)}: the key {missing[1]} is missing")
        if choice := re.fullmatch(r"Invalid enum value (.*)", text):
            choices = _choices(_type_at(info, keys))
            text = f"expected one of {', '.join(choices)}, got {clean_line(choice[1])}"
            hint = _nearest(choice[1].strip("'"), choices)
        return ConfigurationProblem(f"{self.where(keys)}: {text[:1].lower()}{text[1:]}", hint=hint)


def _read(path: Path, example: Path | None) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigurationProblem(f"{path} is larger than {MAX_FILE_BYTES} bytes: not a configuration of ours")
        return data.decode("utf-8")
    except FileNotFoundError as error:
        hint = f"start from a copy of {example}" if example else ""
        raise ConfigurationProblem(f"there is no configuration file {path}", hint=hint) from error
    except OSError as error:
        raise ConfigurationProblem(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationProblem(f"{path} is not UTF-8 text (byte {error.start})") from error


def _yaml() -> Any:
    from ruamel.yaml import YAML  # 50 ms: only where a file is read
    from ruamel.yaml.constructor import SafeConstructor

    class Plain(SafeConstructor):
        """Times stay as they are written: what they mean is for the key to say."""

    Plain.add_constructor("tag:yaml.org,2002:timestamp", lambda constructor, node: node.value)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Plain
    return yaml


def _from_string(folder: Path) -> Any:
    """The hook by which msgspec makes a `Path` (`~` expanded, then relative to `folder`) or one of `setting_types` of a string."""

    def convert(kind: Any, value: object) -> object:
        if not isinstance(value, str):
            raise TypeError(f"expected a string, got {clean_line(repr(value), 60)}")
        if kind is not Path:
            return kind.from_setting(value, folder)
        if not value or "\0" in value:
            raise ValueError("expected a path")
        return folder / Path(value).expanduser()

    return convert


def _refuse_unknown(value: object, info: Type, keys: KeyPath, source: _Source) -> None:
    """Raise for the first key in `value` that `info` does not have, naming the nearest that it has."""
    if isinstance(info, VarTupleType) and isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unknown(item, info.item_type, (*keys, index), source)
    if not isinstance(info, StructType) or not isinstance(value, dict):
        return
    fields = {field.name: field for field in info.fields}
    for key, child in value.items():
        if key not in fields:
            name = clean_line(str(key), 60)
            raise ConfigurationProblem(f"{source.where((*keys, str(key)))}: unknown key", hint=_nearest(name, fields))
        _refuse_unknown(child, fields[key].type, (*keys, key), source)


def _leaf(info: StructType, keys: tuple[str, ...], variable: str) -> Field:
    """The field that `variable` overrides. Raises ConfigurationProblem when there is none."""
    here: Type = info
    field: Field | None = None
    for depth, key in enumerate(keys):
        if isinstance(here, DictType) and key:  # whatever it is called
            field = Field(key, key, here.value_type)
            here = field.type
            continue
        fields = {field.name: field for field in here.fields} if isinstance(here, StructType) else {}
        if key not in fields:
            before = ENVIRONMENT_PREFIX + "".join(f"{known.upper()}__" for known in keys[:depth])
            near = _nearest(key, fields, before)
            raise ConfigurationProblem(f"the environment variable {clean_line(variable)} overrides no key", hint=near)
        field = fields[key]
        here = field.type
    if field is None or isinstance(field.type, StructType | DictType):
        raise ConfigurationProblem(f"the environment variable {variable} names a section: add __ and the key")
    return field


def _environment_value(text: str, kind: Type) -> object:
    """`text` as the key's type wants it: as it is for a string, else as YAML (`2`, `true`, `[{project: x, reason: y}]`)."""
    kinds = kind.types if isinstance(kind, UnionType) else (kind,)
    if not text and len(kinds) > 1:
        return None
    if any(isinstance(one, StrType | LiteralType | CustomType) for one in kinds):
        return text
    try:
        value = _yaml().load(text)
    except Exception:  # what is no YAML is refused as a string, by the check of types
        return text
    return text if value is None else value


def _type_at(info: Type, keys: KeyPath) -> Type:
    for key in keys:
        if isinstance(key, int) and isinstance(info, VarTupleType):
            info = info.item_type
        elif isinstance(info, StructType):
            info = next(field.type for field in info.fields if field.name == key)
    return info


def _choices(kind: Type) -> list[str]:
    kinds = kind.types if isinstance(kind, UnionType) else (kind,)
    return [str(value) for one in kinds if isinstance(one, LiteralType) for value in one.values]


def _nearest(name: str, known: Iterable[str], before: str = "") -> str:
    """`did you mean fresh_seconds?`; with `before`, in the spelling of the environment. Lists what there is when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    spelled = [before + one.upper() if before else one for one in (near or names)]
    if near:
        return f"did you mean {spelled[0]}?"
    return f"known here: {', '.join(spelled)}" if spelled else ""


def _dotted(keys: KeyPath) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{clean_line(key, 60)}" for key in keys).lstrip(".")
