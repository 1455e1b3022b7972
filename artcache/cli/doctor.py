"""`doctor`: what is wrong with this machine, its settings and its stores, and what to type."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from artcache import config
from artcache.errors import ArtcacheError

from .options import Session, common
from .output import Output

if TYPE_CHECKING:
    from artcache.doctor import Finding
    from artcache.doctor.facts import Setting, SettingsFacts, StoreFacts
    from artcache.store import StoreSpec

_COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@click.option(
    "--to", metavar="DIR", help="Also see what `fetch --to DIR` would get: links or copies."
)
@click.option("--no-write", is_flag=True, help="Write nothing to any store.")
@click.option("--offline", is_flag=True, help="Ask no store at all.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="What all stores together get to answer in.",
)
@common
def doctor_command(
    session: Session, to: str | None, no_write: bool, offline: bool, timeout: float
) -> None:
    """Examine this machine, the settings and each store; say what to type where it is wrong.

    Exit code 7: a problem of this machine; 6: only ones of stores; 0: none.
    """
    from pathlib import Path

    from artcache.doctor import clean, exit_code, look
    from artcache.doctor import machine as rules
    from artcache.doctor.probe import examine
    from artcache.doctor.stores import judge as judge_store
    from artcache.home import Home

    settings, loaded = _settings(session)
    wait = examine(() if offline else loaded.stores, write=not no_write)
    home = Home(Path(session.home).absolute() if session.home else loaded.home)
    facts, errors = look.machine(home, to=Path(to).expanduser() if to else None)
    settings = settings._replace(errors=(*settings.errors, *errors))
    findings = [*rules.judge(facts), *rules.judge_settings(settings)]
    answered = wait(timeout)
    for store in answered:
        findings += judge_store(store, weight=facts.weight, restricted=facts.restricted)
    if offline:
        findings += [_skipped(spec) for spec in loaded.stores]
    findings = clean(findings)
    _print(session.output, findings)
    session.output.result(
        {
            "findings": [finding._asdict() for finding in findings],
            "stores": [_numbers(store) for store in answered],
        }
    )
    if code := exit_code(findings):
        click.get_current_context().exit(code)


def _settings(session: Session) -> tuple[SettingsFacts, config.Config]:
    """The settings with their origins; of files that make no sense what goes without them."""
    from artcache.doctor.facts import SettingsFacts
    from artcache.doctor.look import unknown_variables

    errors: list[ArtcacheError] = []
    try:
        loaded = config.load()
    except ArtcacheError as error:
        errors.append(error)
        loaded = config.Config(
            config.default_home(os.environ), (), False, "ignore", False, "default", 0.0, {}
        )
    specs: Sequence[StoreSpec] = loaded.stores
    if session.names_stores:
        specs = session.specs
    loaded = loaded._replace(stores=tuple(specs))
    return (
        SettingsFacts(
            settings=tuple(_origins(session, loaded)),
            files=tuple(config.files(os.environ)),
            ignored=tuple(config.foreign_files(os.environ)),
            unknown=unknown_variables(os.environ, config.VARIABLES),
            errors=tuple(errors),
        ),
        loaded,
    )


def _origins(session: Session, loaded: config.Config) -> Iterator[Setting]:
    from artcache.doctor.facts import Setting

    given = {"dir": "--dir" if session.home else "", "stores": "--store" * session.names_stores}
    values = {
        "dir": session.home or str(loaded.home),
        "stores": ", ".join(_shown(spec) for spec in loaded.stores) or "none",
    }
    for name in loaded._fields:
        if name not in ("home", "stores", "origins"):
            value = getattr(loaded, name)
            values[name] = {True: "yes", False: "no"}.get(value, str(value))
    for name, value in values.items():
        yield Setting(name, value, given.get(name) or loaded.origins.get(name, "default"))
    for name in config.VARIABLES:
        if name.removeprefix("ARTCACHE_").lower() not in values and os.environ.get(name):
            yield Setting(name.removeprefix("ARTCACHE_").lower(), os.environ[name], name)


def _shown(spec: StoreSpec) -> str:
    mode = "" if spec.mode == "readwrite" else f"{spec.mode}:"
    return f"{'public:' * spec.public}{mode}{spec.url}"


def _skipped(spec: StoreSpec) -> Finding:
    from artcache.doctor import Finding

    return Finding(spec.url, "reach", "note", "not asked", "artcache doctor, without --offline")


def _numbers(store: StoreFacts) -> dict[str, Any]:
    """What was measured, for programs."""
    from artcache.doctor import scrubbed

    return {
        "url": scrubbed(store.spec.url),
        "mode": store.spec.mode,
        "public": store.spec.public,
        "identity": scrubbed(store.identity),
        "answer": store.answer,
        "artifacts": store.artifacts,
        "up": store.up,
        "down": store.down,
        "skew": store.skew,
        "create_only": store.create_only,
        "leases": store.leases,
    }


# -- what is printed ----------------------------------------------------------------------


def _print(output: Output, findings: Sequence[Finding]) -> None:
    shown = [finding for finding in findings if finding.bad or not output.quiet]
    width = max((len(finding.check) for finding in shown), default=0)
    area = ""
    for finding in shown:
        if finding.area != area:
            area = finding.area
            output.text(click.style(area, bold=True))
        word = click.style(f"{finding.severity:<7}", fg=_COLORS[finding.severity])
        output.text(f"  {word}  {finding.check:<{width}}  {finding.text}")
        if finding.fix and finding.severity != "ok":
            output.text(f"  {'':7}  {'':<{width}}  fix: {finding.fix}")
    counts = {
        word: sum(one.severity == word for one in findings) for word in ("problem", "warning")
    }
    told = [f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items() if count]
    if told:
        output.text(f"{' and '.join(told)}")
    elif not output.quiet:
        output.text("all is well")
