"""Where the settings come from: options, environment, artcache.toml, the user's config.toml.

The nearer wins, and every setting knows its origin. For the faces only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from .compression import Choice
from .errors import BadConfig, UsageError
from .store import StoreSpec, WritePolicy

PROJECT_FILE = "artcache.toml"
VARIABLES = tuple(
    f"ARTCACHE_{name}"
    for name in [
        *"DIR STORES BACKFILL WRITE_POLICY RACE COMPRESSION TIMEOUT ARCH CUDA".split(),
        *"GDRIVE_ENDPOINT MOUNT_DRIVE TREE".split(),
    ]
)
"""Every variable that anything here reads or, for its children, sets."""
_KEYS = ("dir", "stores", "backfill", "write_policy", "race", "compression", "timeout")
_STORE_KEYS = ("url", "mode", "public", "backfill")
_POLICIES = get_args(WritePolicy)
_COMPRESSIONS = get_args(Choice)
_WORDS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False, "": False}  # fmt: skip


class Config(NamedTuple):
    home: Path
    stores: tuple[StoreSpec, ...]
    backfill: bool
    """Whether a hit in a store is copied to the ones before it."""
    write_policy: WritePolicy
    race: bool
    """Whether a fetch that takes longer than the build did runs against a build."""
    compression: Choice
    timeout: float
    """Seconds that the stores may keep one command, all in all; 0: as long as it takes."""
    origins: Mapping[str, str]
    """By a setting's name in a file: that file, an environment variable or `default`."""


def load(environ: Mapping[str, str] | None = None, cwd: str | None = None) -> Config:
    """Read every source there is.

    `ARTCACHE_DIR` names the home. `ARTCACHE_STORES` lists stores, separated by
    commas or line ends, each `URL` or `read:URL`, `write:URL`. `ARTCACHE_BACKFILL`
    is 1 or 0, for every store; `ARTCACHE_WRITE_POLICY` is ignore, first or all;
    `ARTCACHE_RACE` is 1 or 0; `ARTCACHE_COMPRESSION` is auto, fast, default or small;
    `ARTCACHE_TIMEOUT` is seconds, or a time such as 2min.

    Raises:
        BadConfig: a file that is not as docs/cli.md says; names file and entry.
        UsageError: a variable that is not.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, Any] = {
        "dir": default_home(environ), "stores": (), "backfill": False, "write_policy": "ignore",
        "race": False, "compression": "default", "timeout": 0.0,
    }  # fmt: skip
    origins = dict.fromkeys(found, "default")
    for path in files(environ, cwd):
        body = _from_file(_read(path), path)
        found |= body
        origins |= dict.fromkeys(body, path)
    body = _from_environment(environ)
    found |= body
    origins |= {name: f"ARTCACHE_{name.upper()}" for name in body}
    stores: tuple[StoreSpec, ...] = found["stores"]
    if "backfill" in body:
        stores = tuple(store._replace(backfill=None) for store in stores)
    home = found.pop("dir")
    return Config(home=home, origins=origins, **{**found, "stores": stores})


def _from_file(body: dict[str, Any], path: str) -> dict[str, Any]:
    if "dir" in body:
        body["dir"] = Path(_resolved(body["dir"], path))
    if "stores" in body:
        body["stores"] = _stores(body["stores"], path)
    for name, words in (("write_policy", _POLICIES), ("compression", _COMPRESSIONS)):
        if name in body and body[name] not in words:
            raise BadConfig(f"{path}: {name} is {body[name]!r}: {', '.join(words)}")
    _check_bool(body, "backfill", path)
    _check_bool(body, "race", path)
    if "timeout" in body:
        try:
            body["timeout"] = _seconds(body["timeout"])
        except UsageError:
            raise BadConfig(
                f'{path}: timeout is {body["timeout"]!r}: seconds, or like "2min"'
            ) from None
    return body


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if given := environ.get("ARTCACHE_DIR"):
        body["dir"] = Path(os.path.abspath(os.path.expanduser(given)))
    if "ARTCACHE_STORES" in environ:
        body["stores"] = parse_stores(environ["ARTCACHE_STORES"])
    for name in ("backfill", "race"):
        if (variable := f"ARTCACHE_{name.upper()}") in environ:
            body[name] = _flag(variable, environ[variable])
    if given := environ.get("ARTCACHE_WRITE_POLICY"):
        body["write_policy"] = _one_of(_POLICIES, given, "ARTCACHE_WRITE_POLICY")
    if given := environ.get("ARTCACHE_COMPRESSION"):
        body["compression"] = _one_of(_COMPRESSIONS, given, "ARTCACHE_COMPRESSION")
    if given := environ.get("ARTCACHE_TIMEOUT"):
        try:
            body["timeout"] = _seconds(given)
        except UsageError:
            raise UsageError(
                f"ARTCACHE_TIMEOUT is {given!r}", hint="write it like 90, 90s or 2min"
            ) from None
    return body


def _seconds(value: Any) -> float:
    """A number of seconds, or a time with its unit. Raises `UsageError`."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            from .units import parse_age

            return parse_age(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise UsageError(f"{value!r} is no time")
    return float(value)


def _one_of(words: Sequence[str], word: str, origin: str) -> str:
    if word not in words:
        raise UsageError(f"{origin} is {word!r}", hint=f"one of {', '.join(words)}")
    return word


def _flag(name: str, text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise UsageError(f"{name} is {text!r}", hint="set it to 1 or 0") from None


def _check_bool(body: Mapping[str, Any], name: str, path: str, prefix: str = "") -> None:
    if not isinstance(body.get(name, False), bool):
        raise BadConfig(f"{path}: {prefix}{name} is {body[name]!r}: true or false")


def parse_stores(text: str) -> tuple[StoreSpec, ...]:
    """Raises `UsageError`."""
    words = text.replace("\n", ",").split(",")
    return tuple(StoreSpec.parse(word) for word in words if word.strip())


def files(environ: Mapping[str, str], cwd: str | None = None) -> list[str]:
    """The configuration files that exist, the user's first, the project's last.

    A project file that somebody else owns is left out: anyone may put one into
    a shared folder such as /tmp, and it decides where programs come from.
    """
    user, *projects = _places(environ, cwd)
    first = next((path for path in projects if _ours(path)), None)
    return [path for path in (user, first) if path and _ours(path)]


def foreign_files(environ: Mapping[str, str], cwd: str | None = None) -> list[str]:
    """Those that exist and are left out, since somebody else owns them."""
    return [path for path in _places(environ, cwd) if os.path.isfile(path) and not _ours(path)]


def _places(environ: Mapping[str, str], cwd: str | None) -> list[str]:
    """The user's file, then the project's, the nearest first. They need not exist."""
    found = [f"{_base('XDG_CONFIG_HOME', '~/.config', environ)}/artcache/config.toml"]
    folder = (cwd or _cwd()).rstrip("/") + "/"
    while folder:
        folder = folder.rpartition("/")[0]
        found.append(f"{folder}/{PROJECT_FILE}")
    return found


def _ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid in (0, os.getuid())
    except OSError:
        return False


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody removed it
        return ""


def default_home(environ: Mapping[str, str]) -> Path:
    """Where the home is if nothing says it."""
    return Path(_base("XDG_CACHE_HOME", "~/.cache", environ), "artcache")


def _base(name: str, default: str, environ: Mapping[str, str]) -> str:
    """The XDG specification: a relative path is invalid and to be ignored."""
    given = environ.get(name) or ""
    return given if given.startswith("/") else _expand(default, environ)


def _expand(path: str, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME") or os.path.expanduser("~")
    return path.replace("~", home, 1)


def _read(path: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            body: dict[str, Any] = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}", hint=f"correct it, or move it away: {path}") from None
    _check_names(path, "", body, _KEYS)
    if not isinstance(body.get("dir", ""), str):
        raise BadConfig(f'{path}: dir must be a string, like "/mnt/artcache"')
    return body


def _stores(rows: Any, path: str) -> tuple[StoreSpec, ...]:
    if not isinstance(rows, list):
        raise BadConfig(f"{path}: stores must be a list", hint='stores = ["/mnt/cache"]')
    return tuple(_store(row, path) for row in rows)


def _store(row: Any, path: str) -> StoreSpec:
    if isinstance(row, str):
        row = {"url": row}
    if not isinstance(row, dict) or not isinstance(row.get("url"), str):
        raise BadConfig(f"{path}: each of stores needs a url", hint='stores = [{url = "/mnt/c"}]')
    _check_names(path, "stores.", row, _STORE_KEYS)
    mode = row.get("mode", "readwrite")
    if mode not in ("read", "write", "readwrite"):
        raise BadConfig(f"{path}: stores.mode is {mode!r}: read, write or readwrite")
    _check_bool(row, "public", path, "stores.")
    _check_bool(row, "backfill", path, "stores.")
    try:
        spec = StoreSpec.parse(row["url"])
    except UsageError as error:
        raise BadConfig(f"{path}: {error}") from None
    url = spec.url if "://" in spec.url else _resolved(spec.url, path)
    public = row.get("public", False) or spec.public
    return StoreSpec(url, mode if "mode" in row else spec.mode, public, row.get("backfill"))


def _check_names(path: str, prefix: str, body: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in body:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            raise BadConfig(
                f"{path}: there is no setting {prefix}{name}",
                hint=f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}",
            )


def _resolved(path: str, file: str) -> str:
    """A relative path in a file is relative to that file."""
    expanded = os.path.expanduser(path)
    return os.path.normpath(os.path.join(os.path.dirname(file), expanded))
