"""Machines with something wrong: no permission, a full disk, a killed process."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534

_Result = TypeVar("_Result")


def as_nobody(function: Callable[[], _Result]) -> _Result:
    """Call `function` in a child that permission bits apply to; root's don't.

    Its result, or the exception it raised, comes back (pickled).
    """
    come, go = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(go, "wb") as out:
            try:
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                pickle.dump((True, function()), out)
            except BaseException as error:
                pickle.dump((False, (type(error), str(error), getattr(error, "hint", ""))), out)
        os._exit(0)
    os.close(go)
    with os.fdopen(come, "rb") as back:
        data = back.read()
    os.waitpid(child, 0)
    good, result = pickle.loads(data)
    if good:
        return result  # type: ignore[no-any-return]
    kind, text, hint = result
    error = kind(text)
    error.hint = hint
    raise error


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that any user can reach and write; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="artcache-test-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes at `folder`; skips the test where none can be mounted."""
    folder.mkdir()
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small disk here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def python(code: str, *words: object, **options: Any) -> subprocess.Popen[str]:
    """Start a Python that can import artcache and the tests; its stdout and stderr are piped."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
