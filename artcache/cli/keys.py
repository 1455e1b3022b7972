"""`key`, `explain` and `recipes`: what a fetch would ask for, and why it hits or misses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from artcache.errors import UsageError

from .options import Session, asking, common, recipe_argument
from .output import human_seconds

if TYPE_CHECKING:
    from artcache.api import Cache
    from artcache.key import FieldValue, Key
    from artcache.recipe import Request
    from artcache.survey import Explanation, Near


@click.command("key")
@click.argument("recipe", required=False)
@asking
@click.option("--fields", is_flag=True, help="Print the fields that the hash is made from.")
@click.option(
    "--diff", nargs=2, metavar="A B", help="Print where two artifacts' keys differ, by hash."
)
@common
def key_command(
    session: Session,
    recipe: str | None,
    request: Request,
    fields: bool,
    diff: tuple[str, str] | None,
) -> None:
    """Print the hash that RECIPE's artifact has for this machine and request."""
    from artcache.key import in_reading_order, shown

    output = session.output
    with session.cache() as cache:
        if diff:
            _print_difference(session, cache, request, *diff)
            return
        if not recipe:
            raise UsageError("which recipe's key?", hint="artcache key darknet")
        variant = cache.variants(recipe, request)[0]
    key = variant.key
    if variant.note:
        output.note(variant.note)
    output.text(key.hash)
    if fields:
        for name in in_reading_order(key.fields):
            output.text(f"{name:<15} {shown(key.get(name))}")
    output.result(_key(key))


def _print_difference(
    session: Session, cache: Cache, request: Request, left: str, right: str
) -> None:
    from artcache.key import shown

    ours, theirs = (_key_of(cache, request, target) for target in (left, right))
    differences = ours.differences(theirs)
    for difference in differences:
        session.output.text(
            f"{difference.field:<15} {shown(difference.ours)} | {shown(difference.theirs)}"
        )
    if not differences:
        session.output.note("the keys are equal")
    session.output.result(
        {
            "a": _key(ours),
            "b": _key(theirs),
            "differences": [difference._asdict() for difference in differences],
        }
    )


def _key_of(cache: Cache, request: Request, target: str) -> Key:
    from artcache.survey import matching

    if set(target) <= set("0123456789abcdef"):
        return matching(cache, target, request)[0].key
    return cache.variants(target, request)[0].key


@click.command("explain")
@recipe_argument
@asking
@click.option("--most", default=3, show_default=True, help="How many near artifacts to name.")
@common
def explain_command(session: Session, recipe: str, request: Request, most: int) -> None:
    """Say why the next fetch of RECIPE would hit or miss, and what comes near."""
    from artcache.spelling import build_command
    from artcache.survey import explain

    with session.cache() as cache:
        told = explain(cache, recipe, request, most=most)
    for explanation in told:
        _print_explanation(session, explanation)
    first = next((number for number, one in enumerate(told) if one.hit), None)
    output = session.output
    stand_in = next((one.stand_in for one in told if one.stand_in), None)
    if first is None and stand_in:
        key = stand_in.row.key
        output.text(
            f"the next fetch takes {key.hash[:12]} in {stand_in.row.where}, which runs here;"
            f" `{build_command(recipe, request)}` makes the exact one"
        )
    elif first is None:
        cost = told[0].build_seconds
        took = f", which took {human_seconds(cost)} for others" if cost else ""
        output.text(f"the next fetch is a miss: it builds {told[0].variant.key.hash[:12]}{took}")
    else:
        key = told[first].variant.key
        output.text(f"the next fetch is a hit: {key.hash[:12]} in {told[first].hit}")
    output.result(
        {
            "hit": first is not None,
            "stand_in": _near(stand_in) if first is None and stand_in else None,
            "variants": [_explanation(one) for one in told],
        }
    )


def _print_explanation(session: Session, explanation: Explanation) -> None:
    output = session.output
    key = explanation.variant.key
    output.text(f"{key.recipe} {key.hash}")
    for look in explanation.looks:
        detail = f": {look.detail}" if look.detail else ""
        output.text(f"  {look.where}: {look.state}{detail}")
    for near in explanation.near:
        cost = near.row.build_seconds
        built = f" (its build took {human_seconds(cost)})" if cost else ""
        output.text(f"  near: {near.row.key.hash[:12]} in {near.row.where}{built}")
        for difference in near.differences:
            output.text(f"    {difference}")
        if near.verdict:
            output.text(f"    {near.verdict.outcome}: {'; '.join(near.verdict.reasons)}")


def _explanation(explanation: Explanation) -> dict[str, Any]:
    return {
        **_key(explanation.variant.key),
        "hit": explanation.hit or None,
        "looks": [look._asdict() for look in explanation.looks],
        "near": [_near(near) for near in explanation.near],
        "build_seconds": explanation.build_seconds,
    }


def _near(near: Near) -> dict[str, Any]:
    return {
        "key": near.row.key.hash,
        "where": near.row.where,
        "build_seconds": near.row.build_seconds,
        "differences": [difference._asdict() for difference in near.differences],
        "runs": near.verdict.outcome if near.verdict else None,
        "reasons": list(near.verdict.reasons) if near.verdict else [],
    }


@click.command("recipes")
@common
def recipes_command(session: Session) -> None:
    """List the installed recipes, with their options."""
    from artcache.recipe import installed

    results = []
    with session.cache() as cache:
        for name in installed():
            recipe = cache.recipe(name)
            session.output.text(f"{name:<12} {recipe.summary}")
            for option, meaning in recipe.options.items():
                session.output.text(f"    {option:<12} {meaning}")
            results.append({"name": name, "summary": recipe.summary, "options": recipe.options})
    session.output.result(results)


def _key(key: Key) -> dict[str, FieldValue | dict[str, FieldValue]]:
    return {"recipe": key.recipe, "key": key.hash, "fields": key.fields}
