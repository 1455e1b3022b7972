"""The recipe: a request and a host's facts in, named variants out; building is `build`'s job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from artcache.errors import UsageError
from artcache.key import Key
from artcache.recipe import BuildContext, Recipe, Request, SmokeContext, Supplier, Tool, Variant
from artcache.toolchain import HostFacts

from .flavours import Flavour, having
from .options import MEANINGS, complete, key_words, switches
from .patches import Patch, applying, digest
from .source import Source, fallback, resolve
from .target import Target, choose

if TYPE_CHECKING:
    from artcache.process import Runner


class Plan(NamedTuple):
    """All that `build` and `smoke` need to know about a variant."""

    source: Source
    target: Target
    options: Mapping[str, bool]
    patches: tuple[Patch, ...]
    toolchain: str | None = None
    """The request's, for choosing among the host's toolkits."""
    library_folders: list[str] = []  # noqa: RUF012
    """Filled by `build`: where the libraries are that it linked to, for the smoke test."""


class DarknetRecipe(Recipe):
    name = "darknet"
    version = "1"
    summary = "the darknet detector: AlexeyAB's, pjreddie's, hank-ai's, the Colab fork, or your own"
    options = MEANINGS
    requires = (
        Tool("gcc", "build-essential"),
        Tool("g++", "build-essential"),
        Tool("make", "build-essential"),
        Tool("git", "git", "sources in git"),
        Tool("cmake", "cmake", "--source hank-ai"),
        Tool("dpkg-source", "dpkg-dev", "--source debian, the fallback"),
    )

    def variants(self, host: HostFacts, request: Request, runner: Runner) -> Sequence[Variant]:
        """The source that was asked for; behind the default one, Debian's as a fallback."""
        self.check_options(request)
        given = switches(request.options)
        goal = choose(host, request, given)
        values = complete(given, gpu=goal.cuda is not None, cudnn=goal.cudnn is not None)
        source = resolve(request.source, request.ref, runner)
        _add_what_it_needs(source, given, values)
        if missing := _missing(source.flavour, values):
            its_file = "CMakeLists.txt" if source.flavour.cmake else "Makefile"
            raise UsageError(
                f"the {its_file} of {source.name} has no {missing}",
                hint=f"{missing} is known to {having(missing)}",
            )
        extra = _opencv(runner, source) if values["OPENCV"] else {}
        sources = [source]
        # A ref names a commit of the default source, which Debian's package does not have.
        if request.source is None and not request.ref:
            spare = fallback()
            sources += [] if _missing(spare.flavour, values) else [spare]
        return [self._variant(host, request, each, goal, values, extra) for each in sources]

    def _variant(
        self,
        host: HostFacts,
        request: Request,
        source: Source,
        goal: Target,
        values: Mapping[str, bool],
        extra: Mapping[str, str],
    ) -> Variant:
        chosen = applying(source.flavour.patches_at(source.commit), goal.cuda, goal.cudnn)
        fields = {
            "source": source.name,
            "commit": source.commit,
            "patches": digest(chosen),
            **goal.key_fields(),
            "options": key_words(values),
            "platform": host.platform,
            "libc": host.libc,
            **extra,
        }
        plan = Plan(source, goal, dict(values), chosen, request.toolchain, [])
        return Variant(Key(self.full_fields(fields)), plan, source.note)

    def build(self, context: BuildContext) -> None:
        if context.plan.source.flavour.cmake:
            from .cmake import build
        else:
            from .build import build

        build(context, context.plan)

    def build_group(self, contexts: Sequence[BuildContext]) -> None:
        from .build import build_group

        by_make = [c.plan.target.cuda and not c.plan.source.flavour.cmake for c in contexts]
        if len(contexts) > 1 and all(by_make):
            build_group(contexts, [context.plan for context in contexts])
        else:
            super().build_group(contexts)

    def supplier(self, soname: str, key: Key) -> Supplier | None:
        from . import cuda, cudnn

        made_with, platform = str(key.get("cuda")), str(key.get("platform"))
        found = cuda.supplier(soname, made_with, platform)
        return found or cudnn.supplier(soname, made_with, platform)

    def smoke(self, context: SmokeContext) -> None:
        from .smoke import smoke

        smoke(context, context.plan)


def _missing(flavour: Flavour, values: Mapping[str, bool]) -> str:
    """The first option that is asked for and that the flavour's Makefile lacks."""
    return next((name for name, on in values.items() if on and name not in flavour.options), "")


def _add_what_it_needs(source: Source, given: Mapping[str, bool], values: dict[str, bool]) -> None:
    for name in sorted(source.flavour.always):
        if given.get(name) is False:
            raise UsageError(f"{source.name} cannot be built without {name}")
        values[name] = True


def _opencv(runner: Runner, source: Source) -> dict[str, str]:
    """OpenCV's version is in the name of its libraries, so it is in the key of such a build."""
    from .libraries import opencv_version

    needs_it = "OPENCV" in source.flavour.always
    return {"opencv": opencv_version(runner, source.name if needs_it else "")}
