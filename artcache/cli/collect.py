"""`gc`, `pin` and `unpin`: what may go from the home or a store, and what may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from artcache.errors import StoreUnavailable, UsageError

from .options import Session, asking, common
from .output import human_size

if TYPE_CHECKING:
    from artcache.api import Cache
    from artcache.gc import Removal, Rules
    from artcache.key import Key
    from artcache.recipe import Request
    from artcache.store import Store


@click.command("gc")
@click.option("--max-size", metavar="SIZE", help="Keep at most so much, such as 5G.")
@click.option(
    "--older-than", metavar="AGE", help="What was not used (a store: made) for so long, as 30d."
)
@click.option("--keep-last", metavar="N", type=int, help="The N newest of each recipe stay.")
@click.option(
    "--grace",
    metavar="AGE",
    help="How long others may be at work with what they found; default 24h, in the home 1h.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go; the default for a store.")
@click.option("--yes", is_flag=True, help="Remove it, from a store too.")
@common
def gc_command(
    session: Session,
    max_size: str | None,
    older_than: str | None,
    keep_last: int | None,
    grace: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove what the options say, and litter, from the home or from each --store."""
    if dry_run and yes:
        raise UsageError("--dry-run and --yes exclude each other", hint="leave one out")
    dry_run = dry_run or (session.names_stores and not yes)
    rules = _rules(max_size, older_than, keep_last, grace, session.names_stores)
    freed = later = count = 0
    with session.cache() as cache:
        for place, removal in _collect(cache, rules, dry_run, stores=session.names_stores):
            freed, later, count = freed + removal.size, later + removal.later, count + 1
            verb = "would remove" if dry_run else "removed"
            size = human_size(removal.size + removal.later)
            session.output.text(f"{verb} {removal.kind} {removal.name} ({size}): {removal.why}")
            session.output.row({"place": place, **_row(removal)}, of="removed")
    asked = bool(max_size or older_than or keep_last)
    _summary(session, count, freed, later, dry_run=dry_run, asked=asked)
    if silent := [tier.url for tier in cache.tiers if tier.down]:
        raise StoreUnavailable(
            f"{', '.join(silent)} could not be collected", hint="its warning says why"
        )
    session.output.last_row(of="removed", dry_run=dry_run, freed=freed, later=later)


def _rules(
    max_size: str | None,
    older_than: str | None,
    keep_last: int | None,
    grace: str | None,
    stores: bool,
) -> Rules:
    from artcache import gc
    from artcache.units import parse_age, parse_size

    usual = gc.STORE_GRACE if stores else gc.HOME_GRACE
    return gc.Rules(
        parse_size(max_size) if max_size is not None else None,
        parse_age(older_than) if older_than is not None else None,
        keep_last or 0,
        parse_age(grace) if grace is not None else usual,
    ).checked()


def _collect(
    cache: Cache, rules: Rules, dry_run: bool, *, stores: bool
) -> Iterator[tuple[str, Removal]]:
    from artcache.gc import home, store
    from artcache.survey import places_of

    if not stores:
        for removal in home.collect(cache, rules, dry_run=dry_run):
            yield "home", removal
        return
    if not dry_run:
        places_of(cache, stores=True)
    for tier in cache.tiers:
        try:
            for removal in store.collect(cache, tier, rules, dry_run=dry_run):
                yield tier.url, removal
        except StoreUnavailable as error:
            if len(cache.tiers) == 1:
                raise
            cache.give_up(tier, error)
        cache.tell_problems(tier)


def _summary(
    session: Session, count: int, freed: int, later: int, *, dry_run: bool, asked: bool
) -> None:
    if not count:
        hint = "; --max-size 5G, --older-than 30d or --keep-last 3 remove artifacts"
        session.output.note("nothing to remove" + ("" if asked else hint))
        return
    words = f"{count} removed, {human_size(freed)} freed"
    if dry_run:
        words = f"{count} would go, {human_size(freed)} would be freed"
    if later:
        words += f", {human_size(later)} more by a later gc, after the grace period"
    session.output.note(words + ("; --yes does it" if dry_run and session.names_stores else ""))


def _row(removal: Removal) -> dict[str, Any]:
    return {
        "kind": removal.kind,
        "name": removal.name,
        "why": removal.why,
        "size": removal.size,
        "later": removal.later,
        "recipe": removal.recipe or None,
        "key": removal.hash or None,
    }


@click.command("pin")
@click.argument("target")
@asking
@click.option(
    "--keep-days",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="The pin ends after N days; without it never.",
)
@common
def pin_command(session: Session, target: str, request: Request, keep_days: int | None) -> None:
    """Keep TARGET (a recipe or the first digits of a hash) whatever gc is asked.

    In the home, or in each --store.
    """
    from artcache import pins
    from artcache.survey import located

    with session.cache() as cache:
        places = located(cache, target, request, stores=session.names_stores)
        for row, store in places:
            pins.pin(store, row.key, keep_days)
            ends = f" for {keep_days} days" if keep_days else ""
            session.output.text(f"pinned {row.key.recipe} {row.key.hash[:12]} in {row.where}{ends}")
    session.output.result(
        [
            {"where": row.where, "recipe": row.key.recipe, "key": row.key.hash, "days": keep_days}
            for row, _ in places
        ]
    )


@click.command("unpin")
@click.argument("target", required=False)
@asking
@click.option("--all", "everything", is_flag=True, help="Remove every pin there is.")
@common
def unpin_command(session: Session, target: str | None, request: Request, everything: bool) -> None:
    """Let gc have TARGET (a recipe or the first digits of a hash) again.

    In the home, or in each --store; whoever pinned it.
    """
    from artcache import pins
    from artcache.survey import located, places_of

    if bool(target) == everything:
        raise UsageError("which pins?", hint="artcache unpin TARGET, or artcache unpin --all")
    removed = []
    with session.cache() as cache:
        chosen: list[tuple[str, Store, Key | None]]
        if target:
            found = located(cache, target, request, stores=session.names_stores)
            chosen = [(row.where, store, row.key) for row, store in found]
        else:
            places = places_of(cache, stores=session.names_stores)
            chosen = [(where, store, None) for where, store in places]
        for where, store, key in chosen:
            removed += [(where, pin) for pin in pins.unpin(store, key)]
    for where, pin in removed:
        session.output.text(f"unpinned {pin.recipe} {pin.hash[:12]} in {where}")
    if not removed:
        session.output.note("there was no pin")
    session.output.result(
        [{"where": where, "recipe": pin.recipe, "key": pin.hash} for where, pin in removed]
    )
