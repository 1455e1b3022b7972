"""Rules about one store: from what it answered to findings. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping

from ..manifest import FORMAT
from ..units import human_seconds, human_size
from . import Finding, Severity
from .facts import Fault, StoreFacts, Weight

_SLOW_ANSWER = 2.0
_SLOW = 300.0
"""Seconds for the largest artifact, above which a build may be quicker."""
_SKEW = 30.0
_KEYED_MINUTES = 15
_CAUSES = {
    "dns": "its name is not found",
    "tls": "the secure connection failed",
    "timeout": "no answer in time",
    "refused": "nobody listens there",
    "denied": "refused",
    "bucket": "no such bucket",
}


def judge(
    facts: StoreFacts, *, weight: Weight | None = None, restricted: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Args:
    weight: What a transfer is estimated for.
    restricted: Recipes whose artifacts must not be public, each with its licence.
    """
    yield from _Rules(facts, weight, restricted or {}).findings()


class _Rules:
    def __init__(
        self, facts: StoreFacts, weight: Weight | None, restricted: Mapping[str, str]
    ) -> None:
        self.facts, self.weight, self.restricted = facts, weight, restricted
        self.spec = facts.spec

    def findings(self) -> Iterator[Finding]:
        facts, spec = self.facts, self.spec
        public = ", public" if spec.public else ""
        yield self.say("store", "ok", f"{facts.adapter}, {spec.mode}{public}")
        if facts.identity:
            yield self.say("identity", "ok", facts.identity)
        if facts.fault:
            yield self._unreached(facts.fault)
            return
        if facts.answer is not None:
            yield from self._reach(facts.answer)
            yield from self._contents()
            yield from self._writing()
            yield from self._public()
            yield from self._speed()
        if facts.silent:
            text = f"after {facts.silent:g} s it still does not {facts.step}"
            yield self.say("reach", "problem", text, self._reach_fix(Fault("", cause="timeout")))

    def say(self, check: str, severity: Severity, text: str, fix: str = "") -> Finding:
        return Finding(self.spec.url, check, severity, text, fix)

    # -- reading --------------------------------------------------------------------------

    def _unreached(self, fault: Fault) -> Finding:
        words = _CAUSES.get(fault.cause)
        text = f"{words}: {fault.text}" if words else fault.text
        return self.say("reach", "problem", text, self._reach_fix(fault))

    def _reach_fix(self, fault: Fault) -> str:
        host = self.facts.host
        if fault.cause == "dns" and host:
            return f"getent hosts {host.rpartition(':')[0] or host}    # or a proxy: HTTPS_PROXY"
        if fault.cause in ("timeout", "refused") and host:
            return f"curl -sSI --max-time 10 https://{host}/    # or a proxy: HTTPS_PROXY"
        if fault.hint:
            return fault.hint
        if not host:
            return f"ls -ld {shlex.quote(self.spec.url)}"
        return f"curl -sSI --max-time 10 https://{host}/"

    def _reach(self, seconds: float) -> Iterator[Finding]:
        facts = self.facts
        if facts.there is False:
            if self.spec.writes:
                text = "there is no such folder yet: the first artifact makes it"
                fix = f"mkdir -p {shlex.quote(self.spec.url)}    # if the path is right"
                yield self.say("reach", "note", text, fix)
            else:
                fix = f"ls -ld {shlex.quote(self.spec.url)}    # is it mounted, is the path right?"
                yield self.say("reach", "warning", "there is no such folder", fix)
        elif facts.unreadable:
            severity: Severity = "problem" if self.spec.reads else "note"
            yield self.say("read", severity, facts.unreadable.text, facts.unreadable.hint)
        else:
            slow = seconds > _SLOW_ANSWER
            text = f"answers in {human_seconds(seconds)}" + (", which is slow" if slow else "")
            yield self.say("reach", "note" if slow else "ok", text)

    def _contents(self) -> Iterator[Finding]:
        facts = self.facts
        if facts.unreadable or facts.there is False:
            return
        if facts.root is None:
            yield self._unmarked()
        else:
            yield self._marked(facts.root)
        if facts.unlisted:
            text = f"may not be listed: only exact artifacts are found ({facts.unlisted.text})"
            yield self.say("list", "warning", text, facts.unlisted.hint)

    def _unmarked(self) -> Finding:
        if self.facts.artifacts:
            text = f"{self._counted()}, but no artcache.json: the next artifact brings one"
            return self.say("contents", "note", text)
        text = "nothing was published there yet (no artcache.json)"
        if self.spec.writes and self.facts.writable:
            return self.say("contents", "ok", text)
        fix = f"artcache ls --store {self._shown()}    # is the folder in the URL right?"
        return self.say("contents", "warning", text, fix)

    def _marked(self, root: bytes) -> Finding:
        try:
            body = json.loads(root)
            number, reader = int(body["artcache"]), str(body.get("reader", "a newer one"))
        except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
            text = "its artcache.json is none: this is another folder, or a page of a proxy"
            fix = "check the URL: it ends with the folder that holds artcache.json"
            return self.say("contents", "problem", text, fix)
        if number > FORMAT:
            text = f"format {number}, which artcache {reader} reads; this one reads {FORMAT}"
            return self.say("contents", "problem", text, "pip install --upgrade artcache")
        count = f", {self._counted()}" if self.facts.artifacts is not None else ""
        return self.say("contents", "ok", f"format {number}{count}")

    def _counted(self) -> str:
        facts = self.facts
        more = "more than " if facts.more else ""
        names = f" of {', '.join(sorted(facts.recipes))}" if facts.recipes else ""
        return f"{more}{facts.artifacts} artifact{'s' * (facts.artifacts != 1)}{names}"

    def _shown(self) -> str:
        return shlex.quote(self.spec.url)

    # -- writing --------------------------------------------------------------------------

    def _writing(self) -> Iterator[Finding]:
        facts = self.facts
        read_only = f"write read:{self.spec.url} where it is configured"
        if not self.spec.writes:
            yield self.say("write", "ok", "read-only here, so not tried")
        elif not facts.writable:
            text = "such a store can only be read, and it is configured to be written"
            yield self.say("write", "warning", text, read_only)
        elif facts.unwritten:
            fix = facts.unwritten.hint or read_only
            yield self.say("write", "problem", facts.unwritten.text, fix)
        elif not facts.tried:
            if not facts.silent:
                yield self.say("write", "note", "not tried", "artcache doctor, without --no-write")
        else:
            yield from self._written()

    def _written(self) -> Iterator[Finding]:
        facts = self.facts
        if facts.there is False:
            yield self.say("write", "ok", "may be made")
        elif facts.same is False:
            text = "an object was written, and other bytes (or none) came back"
            yield self.say("write", "problem", text, "use another store: this one loses data")
        elif facts.same or facts.unreadable:
            read = "" if facts.unreadable else ", read back"
            gone = "" if facts.undeleted else " and deleted"
            yield self.say("write", "ok", f"an object was written{read}{gone}")
        yield from self._deleting()
        yield from self._conditions()
        yield from self._clock()

    def _deleting(self) -> Iterator[Finding]:
        if self.facts.undeleted:
            text = (
                "may create and not delete: artifacts are published, but corrupt ones stay, gc"
                " removes nothing, and a small object of this test is left in v1/probes"
            )
            yield self.say("delete", "note", text, self.facts.undeleted.hint)

    def _conditions(self) -> Iterator[Finding]:
        facts = self.facts
        if not facts.exclusive:
            text = "no exclusive create: artifacts get names that never collide, and every machine"
            yield self.say("create-only", "note", f"{text} that misses builds by itself")
            return
        if facts.create_only is False:
            text = (
                "a second object of one name replaced the first: whatever answers ignores"
                " create-only, so of two builders the last one wins, and a published artifact"
                " may be replaced"
            )
            fix = "use the vendor's own server, or one that knows If-None-Match: *"
            yield self.say("create-only", "warning", text, fix)
        elif facts.create_only:
            yield self.say("create-only", "ok", "a second object of one name was refused")
        if facts.unreplaced:
            text = "may create and not replace: no leases, so every machine that misses builds"
            yield self.say("lease", "note", text, facts.unreplaced.hint)
        elif facts.leases is False:
            text = "objects are replaced whatever their version: several machines may build at once"
            yield self.say("lease", "warning", text, "use a server that knows If-Match")
        elif facts.leases:
            yield self.say("lease", "ok", "one builder at a time across machines")

    def _clock(self) -> Iterator[Finding]:
        skew = self.facts.skew
        if skew is None:
            return
        if abs(skew) < _SKEW:
            yield self.say("clock", "ok", "agrees with this machine's")
            return
        side = "ahead of" if skew > 0 else "behind"
        text = f"its clock is {human_seconds(abs(skew))} {side} this machine's"
        if abs(skew) > _KEYED_MINUTES * 60:
            text += f"; signed requests fail beyond {_KEYED_MINUTES} minutes"
        yield self.say("clock", "warning", text, "timedatectl set-ntp true")

    # -- who may read it, how fast --------------------------------------------------------

    def _public(self) -> Iterator[Finding]:
        facts, spec = self.facts, self.spec
        bad = {name: self.restricted[name] for name in facts.recipes if name in self.restricted}
        if spec.public and bad:
            name, licence = min(bad.items())
            text = f"public, and it has {', '.join(sorted(bad))}: {licence} does not allow that"
            fix = f"artcache rm {name} --store {self._shown()} --from {self._shown()}"
            yield self.say("public", "problem", text, fix)
        elif (
            facts.identity == "anonymous"
            and facts.host
            and not spec.public
            and spec.writes
            and facts.tried
            and not facts.unwritten
        ):
            text = "anyone can read and write it, and it is not marked as public"
            fix = (
                f"write public:{spec.url} where it is configured, or take the rights of anonymous"
                " users away"
            )
            yield self.say("public", "warning", text, fix)

    def _speed(self) -> Iterator[Finding]:
        up, down = self.facts.up, self.facts.down
        told = [f"{human_size(rate)}/s {way}" for rate, way in ((up, "up"), (down, "down")) if rate]
        if not told:
            return
        size, name = self.facts.largest, "its largest pack"
        if self.weight and self.weight.pack > size:
            size, name = self.weight.pack, self.weight.name
        slow = False
        if size and down:
            seconds = size / down
            slow = seconds > _SLOW
            told.append(f"{name} ({human_size(size)}) would take {human_seconds(seconds)}")
        fix = "put a nearer store before it, and fetch with --backfill" if slow else ""
        yield self.say("speed", "warning" if slow else "ok", ", ".join(told), fix)
