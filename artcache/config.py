"""Where the settings come from: options, environment, artcache.toml, the user's config.toml.

The nearer wins, and every setting knows its origin. For the faces only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import BadConfig, UsageError
from .store import StoreSpec

PROJECT_FILE = "artcache.toml"
_KEYS = ("dir", "stores")
_STORE_KEYS = ("url", "mode", "public")


class Config(NamedTuple):
    home: Path
    home_origin: str
    stores: tuple[StoreSpec, ...]
    stores_origin: str


def load(environ: Mapping[str, str] | None = None, cwd: str | None = None) -> Config:
    """Read every source there is.

    `ARTCACHE_DIR` names the home. `ARTCACHE_STORES` lists stores, separated by
    commas or line ends, each `URL` or `read:URL`, `write:URL`.

    Raises:
        BadConfig: a file that is not as docs/cli.md says; names file and entry.
    """
    environ = os.environ if environ is None else environ
    home, home_origin = _default_home(environ), "default"
    stores: tuple[StoreSpec, ...] = ()
    stores_origin = "default"
    for path in files(environ, cwd):
        body = _read(path)
        if "dir" in body:
            home, home_origin = Path(_resolved(body["dir"], path)), path
        if "stores" in body:
            stores, stores_origin = _stores(body["stores"], path), path
    if given := environ.get("ARTCACHE_DIR"):
        home, home_origin = Path(os.path.abspath(os.path.expanduser(given))), "ARTCACHE_DIR"
    if "ARTCACHE_STORES" in environ:
        stores = parse_stores(environ["ARTCACHE_STORES"])
        stores_origin = "ARTCACHE_STORES"
    return Config(home, home_origin, stores, stores_origin)


def parse_stores(text: str) -> tuple[StoreSpec, ...]:
    """Raises `UsageError`."""
    words = text.replace("\n", ",").split(",")
    return tuple(StoreSpec.parse(word) for word in words if word.strip())


def files(environ: Mapping[str, str], cwd: str | None = None) -> list[str]:
    """The configuration files that exist, the user's first, the project's last.

    A project file that somebody else owns is left out: anyone may put one into
    a shared folder such as /tmp, and it decides where programs come from.
    """
    found = [f"{_base('XDG_CONFIG_HOME', '~/.config', environ)}/artcache/config.toml"]
    folder = (cwd or _cwd()).rstrip("/") + "/"
    while folder:
        folder = folder.rpartition("/")[0]
        found.append(f"{folder}/{PROJECT_FILE}")
    first = next((path for path in found[1:] if _ours(path)), None)
    return [path for path in (found[0], first) if path and _ours(path)]


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


def _default_home(environ: Mapping[str, str]) -> Path:
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
    public = row.get("public", False)
    if not isinstance(public, bool):
        raise BadConfig(f"{path}: stores.public is {public!r}: true or false")
    try:
        spec = StoreSpec.parse(row["url"])
    except UsageError as error:
        raise BadConfig(f"{path}: {error}") from None
    url = spec.url if "://" in spec.url else _resolved(spec.url, path)
    return StoreSpec(url, mode if "mode" in row else spec.mode, public or spec.public)


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
