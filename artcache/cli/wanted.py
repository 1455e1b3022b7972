"""`wanted` and `build --wanted`: what machines missed and could not build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from artcache.errors import BuildFailed

from .options import Session, common
from .output import Output

if TYPE_CHECKING:
    from artcache.fulfil import Fulfilled
    from artcache.wanted import Wanted


@click.command("wanted")
@click.argument("target", required=False)
@click.option("--drop", "drops", is_flag=True, help="Take them off the lists.")
@common
def wanted_command(session: Session, target: str | None, drops: bool) -> None:
    """List what other machines missed and could not build, store by store.

    TARGET is a recipe or the first digits of a hash. `artcache build --wanted`
    builds it.
    """
    from artcache.wanted import drop

    form = "{:<12}  {:<14} {:<6} {:<14} {:<12} {:>5}  {:<20}  {}"
    with session.cache() as cache:
        found = _chosen(cache, target)
        for number, wanted in enumerate(found):
            if not number:
                session.output.text(
                    form.format("KEY", "RECIPE", "CUDA", "ARCH", "LIBC", "ASKED", "LAST", "WHERE")
                )
            session.output.text(form.format(*_columns(wanted)))
            if wanted.problem:
                session.output.warn(f"{wanted.tier.url}: {wanted.name}: {wanted.problem}")
            if drops:
                drop(wanted)
        if not found:
            _tell_none(session.output, cache)
    if found and drops:
        session.output.note(f"{len(found)} taken off the list")
    session.output.result([_row(wanted) for wanted in found])


def _chosen(cache: Any, target: str | None) -> list[Wanted]:
    from artcache.wanted import listed

    found = list(listed(cache))
    if target is None:
        return found
    chosen = [one for one in found if one.recipe == target]
    if not chosen and len(target) >= 4:
        chosen = [one for one in found if one.hash.startswith(target)]
    return chosen


def _columns(wanted: Wanted) -> list[str]:
    from artcache.key import shown

    record, words = wanted.record, ["?", "?", "?", "?", "?"]
    if record:
        words = [shown(record.key.get(name)) for name in ("cuda", "arch", "libc")]
        words += [str(record.asked), record.last]
    return [wanted.hash[:12], wanted.recipe, *words, wanted.tier.url]


def _row(wanted: Wanted) -> dict[str, Any]:
    row: dict[str, Any] = {
        "where": wanted.tier.url,
        "name": wanted.name,
        "recipe": wanted.recipe,
        "key": wanted.hash,
        "problem": wanted.problem,
    }
    if record := wanted.record:
        host = record.host
        row |= {
            "fields": record.key.fields,
            "match": record.match,
            "asked": record.asked,
            "created": record.created,
            "last": record.last,
            "host": {
                "platform": host.platform,
                "libc": host.libc,
                "archs": [str(arch) for arch in host.archs],
                "driver": host.driver,
                "service": host.service,
            },
        }
    return row


def build_wanted(
    session: Session, recipe: str | None, *, any_source: bool, **settings: Any
) -> None:
    """What `build --wanted` does: each record of each store, one after the other."""
    from artcache.fulfil import fulfil
    from artcache.wanted import listed

    done: list[Fulfilled] = []
    with session.cache(**settings) as cache:
        for wanted in list(listed(cache, recipe)):
            done.append(fulfil(cache, wanted, any_source=any_source))
            _tell(session.output, done[-1])
        if not done:
            _tell_none(session.output, cache)
    failed = [one for one in done if one.outcome == "failed"]
    if failed:
        raise BuildFailed(
            f"{len(failed)} of {len(done)} wanted artifacts could not be built: "
            + "; ".join(f"{one.wanted.hash[:12]}: {one.reason}" for one in failed),
            hint="their records stay; `artcache wanted` lists them, --drop takes them off",
        )
    session.output.result([_told(one) for one in done])


def _tell_none(output: Output, cache: Any) -> None:
    if not cache.tiers:
        output.note("nothing is wanted: no store is configured, see --store")
    elif readers := cache.readers():  # of the others a warning told
        output.note(f"nothing is wanted in {', '.join(tier.url for tier in readers)}")


def _tell(output: Output, one: Fulfilled) -> None:
    name = f"{one.wanted.recipe} {one.wanted.hash[:12]} of {one.wanted.tier.url}"
    if one.outcome == "built" and one.built:
        output.text(one.built.fetched.entry.tree)
        output.note(f"{name}: built, no longer wanted")
    elif one.outcome == "served":
        output.note(f"{name}: {one.reason}, no longer wanted")
    else:
        output.warn(f"{name} stays on the list: {one.reason}")


def _told(one: Fulfilled) -> dict[str, Any]:
    from .fetch import told_of_build

    return {
        **_row(one.wanted),
        "outcome": one.outcome,
        "reason": one.reason,
        "built": told_of_build(one.built) if one.built else None,
    }
