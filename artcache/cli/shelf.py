"""`ls`, `info`, `verify` and `rm`: what is here and in each store."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import click

from artcache.errors import BuildFailed, Corrupt, StoreUnavailable, UsageError

from .options import Session, asking, common
from .output import Output, human_age, human_seconds, human_size

if TYPE_CHECKING:
    from artcache.key import Key
    from artcache.manifest import Manifest
    from artcache.recipe import Request
    from artcache.survey import Row


@click.command("ls")
@click.argument("recipe", required=False)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N.")
@common
def ls_command(session: Session, recipe: str | None, limit: int | None) -> None:
    """List what the home and each store hold, of RECIPE or of all, as it is read."""
    from itertools import islice

    from artcache.survey import rows

    count = 0
    form = "{:<12}  {:<14} {:>9} {:>7}  {:<6} {:<14} {:>10}  {:<8} {}"
    with session.cache() as cache:
        for row in islice(rows(cache, recipe), limit):
            if not count:
                words = ("KEY", "RECIPE", "SIZE", "AGE", "CUDA", "ARCH", "BUILD", "PINNED", "WHERE")
                session.output.text(form.format(*words))
            count += 1
            session.output.row(_row(row))
            session.output.text(
                form.format(
                    row.key.hash[:12],
                    row.key.recipe,
                    human_size(row.size),
                    human_age(time.time() - row.made),
                    _field(row.key, "cuda"),
                    _field(row.key, "arch"),
                    human_seconds(row.build_seconds),
                    _pinned(row),
                    row.where,
                )
            )
        readers = cache.readers()
        for tier in readers:
            if not tier.repository.store.traits.lists:
                session.output.note(f"{tier.url} cannot be listed; `artcache explain` asks it")
    if not count:
        where = ", ".join(["the home", *(tier.url for tier in readers)])
        hint = f"nothing of {recipe} in {where}: `artcache recipes` lists what can be made"
        usual = f"nothing yet in {where}: `artcache fetch darknet` makes the first"
        session.output.note(hint if recipe else usual)
    session.output.last_row()


@click.command("info")
@click.argument("target")
@asking
@common
def info_command(session: Session, target: str, request: Request) -> None:
    """Describe one artifact: TARGET is a recipe or the first digits of a hash."""
    from artcache.survey import manifest_of, matching

    with session.cache() as cache:
        found = matching(cache, target, request)
        manifest = manifest_of(cache, found[0])
    _print_info(session.output, manifest, found)
    session.output.result(
        {
            "recipe": manifest.key.recipe,
            "key": manifest.key.hash,
            "fields": manifest.key.fields,
            "size": manifest.size,
            "files": len(manifest.files),
            "packs": [pack._asdict() for pack in manifest.packs],
            "needs": manifest.needs.to_json(),
            "provenance": dict(manifest.provenance),
            "places": [_row(row) for row in found],
        }
    )


def _print_info(output: Output, manifest: Manifest, found: list[Row]) -> None:
    from artcache.key import in_reading_order, shown

    output.text(f"{manifest.key.recipe} {manifest.key.hash}")
    for name in in_reading_order(manifest.key.fields):
        output.text(f"  {name:<15} {shown(manifest.key.get(name))}")
    output.text(f"  {'files':<15} {len(manifest.files)}, {human_size(manifest.size)}")
    for pack in manifest.packs:
        output.text(f"  {'pack':<15} {pack.blake3} {human_size(pack.length)}")
    for name, value in manifest.needs.to_json().items():
        if value:
            text = value if isinstance(value, str) else " ".join(value)
            output.text(f"  {'needs ' + name:<15} {text}")
    for name, value in sorted(manifest.provenance.items()):
        output.text(f"  {name:<15} {_flat(value)}")
    for row in found:
        where = row.path if row.path else row.where
        ends = f", pinned {_pinned(row)}" if row.pinned else ""
        output.text(f"  {'in ' + ('home' if row.path else 'store'):<15} {where}{ends}")


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in sorted(value.items()) if inner)
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


@click.command("verify")
@click.argument("target", required=False)
@asking
@click.option("--deep", is_flag=True, help="Read the packs in the stores too.")
@click.option("--rebuild", is_flag=True, help="Build the recipe TARGET once more and compare.")
@common
def verify_command(
    session: Session, target: str | None, request: Request, deep: bool, rebuild: bool
) -> None:
    """Check every byte of TARGET (a recipe or hash; default: all) against its manifest."""
    from artcache.survey import home_rows, matching, rows, verify

    if rebuild:
        _rebuild(session, target, request)
        return
    count = bad = 0
    with session.cache() as cache:
        everything = rows(cache) if deep else home_rows(cache)
        chosen = matching(cache, target, request) if target else everything
        for verdict in verify(cache, chosen, deep=deep):
            row = verdict.row
            state = verdict.problem or "sound"
            count, bad = count + 1, bad + bool(verdict.problem)
            session.output.text(f"{row.key.hash[:12]} {row.key.recipe} in {row.where}: {state}")
            checked = {"sound": not verdict.problem, "problem": verdict.problem}
            session.output.row({**_row(row), **checked})
    if bad:
        raise Corrupt(
            f"{bad} of {count} artifacts were corrupt",
            hint="`artcache fetch` makes them anew",
        )
    if silent := [tier.url for tier in cache.tiers if deep and tier.down]:
        raise StoreUnavailable(
            f"{', '.join(silent)} could not be checked", hint="its warning says why"
        )
    session.output.note(f"{count} checked, all sound")
    session.output.last_row()


def _rebuild(session: Session, target: str | None, request: Request) -> None:
    if not target:
        raise UsageError("which recipe's rebuild?", hint="artcache verify --rebuild darknet")
    with session.cache() as cache:
        built = cache.rebuild(target, request)
    key, differing = built.fetched.key, built.differing.get("home", [])
    if differing:
        raise BuildFailed(
            f"{key.recipe} {key.hash[:12]} is not reproducible: {'; '.join(differing)}",
            hint=f"the log of the second build: {built.log}",
        )
    session.output.text(f"{key.hash[:12]} {key.recipe}: built again to the same bytes")
    session.output.result({"recipe": key.recipe, "key": key.hash, "reproducible": True})


@click.command("rm")
@click.argument("target")
@asking
@click.option(
    "--from", "where", metavar="STORE", help="Remove it from this store; `all`: from everywhere."
)
@common
def rm_command(session: Session, target: str, request: Request, where: str | None) -> None:
    """Remove one artifact (a recipe or the first digits of a hash) from the home."""
    from artcache.survey import matching, remove

    removed: list[str] = []
    with session.cache() as cache:
        if where and where not in ("home", "all"):
            tier = cache.tier(where)
            where = tier.url
            cache.tiers = [tier, *(other for other in cache.tiers if other is not tier)]
        found = matching(cache, target, request)
        chosen = [row for row in found if where == "all" or row.where == (where or "home")]
        if not chosen:
            places = ", ".join(row.where for row in found)
            raise UsageError(
                f"{found[0].key.hash[:12]} is not in {where or 'the home'}; it is in {places}",
                hint=f"artcache rm {target} --from {found[0].where}",
            )
        for row in chosen:
            removed += remove(cache, row)
    for name in removed:
        session.output.text(f"removed {name}")
    session.output.result({"removed": removed})


def _field(key: Key, name: str) -> str:
    from artcache.key import shown

    value = key.get(name)
    return "-" if value is None else shown(value)


def _pinned(row: Row) -> str:
    """`forever`, `for 12 d`, or `-`."""
    if row.pinned is None:
        return "-"
    return "forever" if row.pinned == math.inf else f"for {human_age(row.pinned - time.time())}"


def _row(row: Row) -> dict[str, Any]:
    return {
        "where": row.where,
        "recipe": row.key.recipe,
        "key": row.key.hash,
        "fields": row.key.fields,
        "size": row.size,
        "made": row.made,
        "used": row.used,
        "build_seconds": row.build_seconds,
        "path": str(row.path) if row.path else None,
        "pinned": row.pinned is not None,
        "pinned_until": row.pinned if row.pinned != math.inf else None,
    }
