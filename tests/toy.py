"""A recipe package made at test time, offered by a real entry point, with every way to fail.

`install(folder)` writes it; with `folder` on PYTHONPATH `artcache fetch toy` works.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

MODULE = '''
"""The toy recipe."""
import os, time
import artcache
from artcache.errors import BuildFailed, SmokeFailed, SourceUnavailable

class Toy(artcache.Recipe):
    name = "toy"
    summary = "a toy"
    program = "bin/toy"
    options = {"FAIL": "how to fail", "WORD": "what it says", "SLEEP": "seconds", "SIZE": "bytes",
               "NOISE": "bytes that no compression helps"}

    def variants(self, host, request, runner):
        found = super().variants(host, request, runner)
        if request.options.get("FAIL") == "source":
            found.append(artcache.Variant(
                artcache.Key(self.full_fields({"commit": "spare"})), "spare", "took the spare"))
        return found

    def key_fields(self, host, request):
        words = [f"{n}={v}" for n, v in request.options.items() if n != "FAIL"]
        return {"commit": request.ref or "1", "options": words, "libc": host.libc,
                "arch": tuple(str(a) for a in request.archs) or "none", "cuda": "none"}

    def build(self, context):
        fail = os.environ.get("TOY_FAIL", "")
        if fail == "source" and context.plan != "spare":
            raise SourceUnavailable("the source does not answer")
        counter = os.environ.get("TOY_COUNTER")
        if counter:
            with open(counter, "a") as file:
                file.write("built\\\\n")
        context.phase("compile", "toy")
        if fail == "compile":
            context.runner.run(["sh", "-c", "for i in $(seq 30); do echo line $i; done; exit 3"])
        if fail == "tool":
            context.runner.run(["no-such-compiler"])
        if fail == "crash":
            raise KeyError("a recipe's own mistake")
        if fail == "empty":
            return
        words = dict(w.split("=", 1) for w in context.key.get("options") or ())
        context.runner.run(["sleep", os.environ.get("TOY_SLEEP") or words.get("SLEEP", "0")])
        if fail == "late":
            raise BuildFailed("it failed after a while")
        program = context.tree / "bin" / "toy"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\\\\necho " + words.get("WORD", "hello") + ' "$@"\\\\n')
        program.chmod(0o755)
        (context.tree / "data").mkdir()
        (context.tree / "data" / "names").write_text("cat\\\\ndog\\\\n")
        size = int(words.get("SIZE", "0"))
        if size:
            (context.tree / "data" / "blob").write_bytes(os.urandom(1000) * (size // 1000))
        noise = int(words.get("NOISE", "0"))
        if noise:
            (context.tree / "data" / "noise").write_bytes(os.urandom(noise))
        (context.tree / "data" / "link").symlink_to("names")
        if fail == "differ":
            (context.tree / "data" / "names").write_text(str(time.time_ns()))
        context.provenance["commit"] = "1"

    def smoke(self, context):
        if os.environ.get("TOY_FAIL") == "smoke":
            raise SmokeFailed("the toy does not run")
        context.runner.run([context.tree / "bin" / "toy"])

recipe = Toy()
'''.replace("\\\\", "\\")


def install(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy_recipe.py").write_text(MODULE)
    info = folder / "toy_recipe-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-recipe\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[artcache.recipes]\ntoy = toy_recipe:recipe\n")
    return folder


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Machine:
    """A machine with the toy recipe: its own home, configuration and environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.store = folder / "store"
        self.toy = install(folder / "site")
        self.work = folder / "work"
        self.work.mkdir()
        self.env = {
            **{name: value for name, value in os.environ.items() if name[:9] != "ARTCACHE_"},
            "PYTHONPATH": str(self.toy),
            "ARTCACHE_DIR": str(self.home),
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "artcache", *map(str, words)]

    def run(self, *words: object, **env: str) -> Ran:
        done = subprocess.run(
            self.command(*words),
            env={**self.env, **env},
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr or "--debug" in words, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: object, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            env={**self.env, **env},
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def manifests(self) -> list[Path]:
        return sorted(self.store.glob("v1/manifests/*/*.json"))

    def packs(self) -> list[Path]:
        return sorted(self.store.glob("v1/packs/*/*.pack"))
