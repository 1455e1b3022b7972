"""Options that several commands share, and the session that they make."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from artcache.errors import UsageError

from .output import Output

if TYPE_CHECKING:
    from artcache.api import Cache
    from artcache.recipe import Request
    from artcache.store import StoreSpec
    from artcache.toolchain import GpuArch

_F = TypeVar("_F", bound=Callable[..., Any])


class Session:
    """What one command works with: its output, and a cache with its stores."""

    def __init__(self, output: Output, stores: Sequence[str], home: str | None) -> None:
        self.output = output
        self._stores = stores
        self.home = home
        """What `--dir` named."""

    @property
    def names_stores(self) -> bool:
        """Whether `--store` was given."""
        return bool(self._stores)

    @property
    def specs(self) -> list[StoreSpec]:
        """What `--store` named. Raises `UsageError`."""
        from artcache.config import parse_stores

        return [spec for text in self._stores for spec in parse_stores(text)]

    @contextlib.contextmanager
    def cache(self, **settings: Any) -> Iterator[Cache]:
        """The configured cache; first finishes or undoes what an earlier command left.

        Args:
            settings: Of `api.Cache`, where an option says it; None: as configured.
        """
        from artcache.api import Cache

        from .show import TerminalObserver

        observer = TerminalObserver(self.output)
        cache = Cache(self.specs or None, home=self.home, observer=observer, **settings)
        self._recover(str(cache.home.folder("pending")))
        try:
            yield cache
        finally:
            observer.done()

    def _recover(self, pending: str) -> None:
        try:
            if not os.listdir(pending):
                return
        except OSError:
            return
        from pathlib import Path

        from artcache.install import recover

        for line in recover(Path(pending)):
            self.output.note(line)


def with_options(
    function: _F, wrapper: Callable[..., Any], options: Iterable[Callable[[Any], Any]]
) -> _F:
    """`wrapper` in the place of `function`, with the options that it turns into one argument."""
    wrapper.__name__ = function.__name__
    wrapper.__doc__ = function.__doc__
    inner = getattr(function, "__click_params__", [])
    wrapper.__click_params__ = inner  # type: ignore[attr-defined]
    for option in reversed(list(options)):
        wrapper = option(wrapper)
    return cast(_F, wrapper)


def common(function: _F) -> _F:
    """The options of every command; they arrive as one `session`."""

    def wrapper(
        as_json: bool,
        quiet: bool,
        verbose: bool,
        debug: bool,
        no_progress: bool,
        stores: tuple[str, ...],
        home: str | None,
        **rest: Any,
    ) -> Any:
        command = click.get_current_context().info_name or ""
        output = Output(
            command,
            as_json=as_json,
            quiet=quiet,
            verbose=verbose,
            debug=debug,
            progress=not no_progress,
        )
        return function(session=Session(output, stores, home), **rest)

    options = (
        click.option(
            "--store",
            "stores",
            multiple=True,
            metavar="[MODE:]URL",
            help="A store to ask, in order; repeatable. MODE is read, write or readwrite.",
        ),
        click.option(
            "--dir", "home", metavar="DIR", help="The local home; ARTCACHE_DIR says it too."
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="Only warnings, errors and the result."),
        click.option("-v", "--verbose", is_flag=True, help="Every line of a build."),
        click.option("--no-progress", is_flag=True, help="No progress on stderr."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    )
    return with_options(function, wrapper, options)


def asking(function: _F) -> _F:
    """The options that say which artifact is wanted; they arrive as one `request`."""

    def wrapper(
        source: str | None,
        ref: str | None,
        arch: str | None,
        cuda: str | None,
        cudnn: str | None,
        toolchain: str | None,
        settings: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        request = make_request(source, ref, arch, cuda, cudnn, toolchain, settings)
        return function(request=request, **rest)

    options = (
        click.option("--source", help="A source the recipe knows, URL, clone or tarball."),
        click.option("--ref", help="A commit, tag or branch of the source."),
        click.option("--arch", help="GPU architectures: sm_75,sm_80 or 7.5 or 9.0+PTX."),
        click.option("--cuda", help="The CUDA version, such as 12.8; none: a CPU build."),
        click.option("--cudnn", help="The cuDNN version, such as 9; none: without it."),
        click.option(
            "--toolchain",
            metavar="machine|wheels|DIR",
            help="Where nvcc comes from: this machine, NVIDIA's wheels, or a folder.",
        ),
        click.option(
            "-s",
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="A recipe's option.",
        ),
    )
    return with_options(function, wrapper, options)


def make_request(
    source: str | None,
    ref: str | None,
    arch: str | None,
    cuda: str | None,
    cudnn: str | None,
    toolchain: str | None,
    settings: Sequence[str],
) -> Request:
    """Raises `UsageError` for a word that cannot be read."""
    from artcache.recipe import Request

    options: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"{setting!r} sets nothing", hint="write it like --set OPENMP=1")
        options[name.upper()] = value
    return Request(
        source=source,
        ref=ref,
        archs=_archs(arch),
        cuda=_cuda(cuda),
        cudnn=cudnn,
        options=options,
        toolchain=toolchain,
    )


def _archs(text: str | None) -> tuple[GpuArch, ...]:
    if text is None:
        return ()
    from artcache.toolchain import GpuArch

    return GpuArch.parse_list(text)


def _cuda(text: str | None) -> str | None:
    if text is None or text == "none":
        return text
    from artcache.toolchain import CudaVersion

    return str(CudaVersion.parse(text))


def recipe_argument(function: _F) -> _F:
    return click.argument("recipe", shell_complete=recipe_names)(function)


def several_recipes(function: _F) -> _F:
    return click.argument(
        "recipes", nargs=-1, required=True, metavar="RECIPE...", shell_complete=recipe_names
    )(function)


def optional_recipe(function: _F) -> _F:
    return click.argument("recipe", required=False, shell_complete=recipe_names)(function)


def recipe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from artcache.recipe import installed

    return [name for name in installed() if name.startswith(incomplete)]
