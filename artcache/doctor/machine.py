"""Rules about this machine, its home and its settings: from facts to findings. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ..compat import minimum_driver
from ..recipe import Tool
from ..toolchain import Gpu, GpuArch, HostFacts, compiles_for
from ..units import human_size
from . import Finding
from .facts import HomeFacts, MachineFacts, SettingsFacts, Target, Wanted

_AREA = "machine"
_HOME = "home"
_SPARE = 100 * 10**6
"""With less free even small artifacts fail."""
_LITTER = 500 * 10**6
_VOLATILE = frozenset({"tmpfs", "ramfs"})


def judge(facts: MachineFacts) -> Iterator[Finding]:
    host = facts.report.facts
    yield from _system(facts)
    yield from _gpus(host, facts)
    yield from _toolkits(host, facts)
    yield from _tools(facts.tools)
    yield from _packages(facts)
    yield from _clock(facts)
    yield from _umask(facts.umask)
    yield from _home(facts)
    if facts.target:
        yield _target(facts.target)


def _system(facts: MachineFacts) -> Iterator[Finding]:
    report, host = facts.report, facts.report.facts
    where = f", on {host.service}" if host.service else ""
    text = f"{report.system or 'unknown'}, kernel {report.kernel}, {host.platform}{where}"
    yield Finding(_AREA, "system", "ok", text)
    libraries = f"{host.libc}, libstdc++ GLIBCXX_{host.glibcxx or '?'}"
    if host.libc.startswith("glibc"):
        yield Finding(_AREA, "libc", "ok", libraries)
    else:
        text = f"{host.libc}: what was built with glibc does not run here, CUDA neither"
        yield Finding(_AREA, "libc", "warning", text, "use an image of Debian or Ubuntu")


# -- GPUs and CUDA ------------------------------------------------------------------------


def _gpus(host: HostFacts, facts: MachineFacts) -> Iterator[Finding]:
    broken = [_noted(note, facts) for note in host.notes]
    yield from broken
    if host.gpus:
        named = ", ".join(f"{gpu.name} (sm_{gpu.capability})" for gpu in host.gpus)
        limit = f", up to CUDA {host.driver_cuda}" if host.driver_cuda else ""
        driver = f", driver {host.driver}{limit}" if host.driver else ""
        yield Finding(_AREA, "gpu", "ok", named + driver)
    elif host.arch_override:
        archs = ",".join(map(str, host.arch_override))
        yield Finding(_AREA, "gpu", "ok", f"none; ARTCACHE_ARCH says {archs}")
    elif not any(finding.check == "driver" for finding in broken):
        name = facts.tools[0].recipes[0] if facts.tools else "RECIPE"
        fix = f"artcache build {name} --arch sm_75 --cuda 13.0    # for a machine that has one"
        yield Finding(_AREA, "gpu", "note", "none: builds are for the CPU unless asked", fix)


def _noted(note: str, facts: MachineFacts) -> Finding:
    """What `detect` found broken."""
    if "GPUs" in note or "driver" in note:
        fix = "pip install nvidia-ml-py" if "nvidia-ml-py" in note else "nvidia-smi"
        return Finding(_AREA, "driver", "warning", note, fix)
    if "cuDNN" in note:
        return Finding(_AREA, "cudnn", "warning", note, _fetched("cudnn", facts))
    variable, names, _ = note.partition(" names ")
    fix = f"unset {variable}" if names else "install that CUDA toolkit anew, or remove its folder"
    return Finding(_AREA, "cuda", "warning", note, fix)


def _toolkits(host: HostFacts, facts: MachineFacts) -> Iterator[Finding]:
    if not host.toolkits:
        text = "no nvcc: CUDA 13 comes from NVIDIA's wheels when it is needed, older ones do not"
        yield Finding(_AREA, "cuda", "note", text, _fetched("cuda", facts))
        return
    used, *others = host.toolkits
    text = f"{used.full_version} in {used.root} ({used.origin}) is used"
    if others:
        text += "; also " + ", ".join(f"{kit.full_version} in {kit.root}" for kit in others)
    if host.cuda_override and host.cuda_override != used.version:
        text = f"ARTCACHE_CUDA is {host.cuda_override}, and there is only: {text}"
        yield Finding(_AREA, "cuda", "warning", text, "unset ARTCACHE_CUDA, or install that CUDA")
    else:
        yield Finding(_AREA, "cuda", "ok", text)
    yield from _mismatches(host)
    yield from _cudnn(host, facts)


def _mismatches(host: HostFacts) -> Iterator[Finding]:
    """Between the toolkit, the driver and the GPUs: what is compiled here may not run here."""
    cuda = host.toolkits[0].version
    if host.driver_cuda and host.driver_cuda.major < cuda.major:
        text = (
            f"the driver {host.driver} goes up to CUDA {host.driver_cuda}, so what CUDA {cuda}"
            f" builds does not run here; it takes {minimum_driver(cuda)} or newer"
        )
        fix = f"export ARTCACHE_CUDA={host.driver_cuda}    # or install a newer driver"
        yield Finding(_AREA, "driver", "warning", text, fix)
    elif host.driver_cuda and host.driver_cuda < cuda:
        text = (
            f"CUDA {cuda} is newer than the driver's {host.driver_cuda}: machine code runs,"
            " PTX does not"
        )
        yield Finding(_AREA, "driver", "note", text)
    for gpu in {gpu.capability: gpu for gpu in host.gpus}.values():
        yield from _too_old(host, gpu)


def _too_old(host: HostFacts, gpu: Gpu) -> Iterator[Finding]:
    arch = GpuArch(gpu.capability)
    if not (why := compiles_for(host.toolkits[0].version, arch)):
        return
    fit = next((kit for kit in host.toolkits if not compiles_for(kit.version, arch)), None)
    fix = f"export ARTCACHE_CUDA={fit.version}" if fit else "install a CUDA toolkit that has it"
    yield Finding(_AREA, "cuda", "warning", f"{gpu.name}: {why}", fix)


def _cudnn(host: HostFacts, facts: MachineFacts) -> Iterator[Finding]:
    if not host.cudnns:
        text = "none of this machine's own: it is fetched when it is needed"
        yield Finding(_AREA, "cudnn", "note", text, _fetched("cudnn", facts))
        return
    major = host.toolkits[0].version.major
    fit = [one for one in host.cudnns if one.cuda_major in (None, major)]
    best = (fit or list(host.cudnns))[0]
    text = f"{best.version} in {best.library}"
    if fit:
        yield Finding(_AREA, "cudnn", "ok", text)
    else:
        text += f" is for CUDA {best.cuda_major}, the toolkit in use is CUDA {major}"
        yield Finding(_AREA, "cudnn", "warning", text, _fetched("cudnn", facts))


def _fetched(recipe: str, facts: MachineFacts) -> str:
    return f"artcache fetch {recipe}" if recipe in facts.recipes else ""


# -- programs, packages, clock ------------------------------------------------------------


def _tools(tools: tuple[Wanted, ...]) -> Iterator[Finding]:
    if not tools:
        return
    here = [one.tool.program for one in tools if one.path]
    if here:
        yield Finding(_AREA, "tools", "ok", ", ".join(dict.fromkeys(here)))
    always = [one for one in tools if not one.path and not one.tool.when]
    if always:
        names = _several([one.tool.program for one in always])
        recipes = ", ".join(sorted({name for one in always for name in one.recipes}))
        text = f"no {names}: {recipes} can be fetched and not be built here"
        yield Finding(_AREA, "tools", "warning", text, _install([one.tool for one in always]))
    for one in tools:
        if not one.path and one.tool.when:
            text = (
                f"no {one.tool.program}, which {', '.join(one.recipes)} needs for {one.tool.when}"
            )
            yield Finding(_AREA, "tools", "note", text, _install([one.tool]))


def _several(names: list[str]) -> str:
    return ", no ".join(dict.fromkeys(names))


def _install(tools: list[Tool]) -> str:
    return "apt-get install -y " + " ".join(dict.fromkeys(tool.package for tool in tools))


def _packages(facts: MachineFacts) -> Iterator[Finding]:
    there = [f"{name} {version}" for name, version in facts.packages.items() if version]
    text = ", ".join([f"Python {facts.python}", *there])
    yield Finding(_AREA, "python", "ok", text)
    missing = [name for name, version in facts.packages.items() if not version]
    if missing:
        text = f"not installed: {', '.join(missing)}"
        fix = f"pip install {' '.join(missing)}"
        yield Finding(_AREA, "python", "problem", text, fix)
    if not facts.recipes:
        text = "no recipe is installed"
        yield Finding(_AREA, "recipes", "warning", text, "pip install --force-reinstall artcache")


def _clock(facts: MachineFacts) -> Iterator[Finding]:
    if facts.now < facts.newest - 86400:
        days = (facts.newest - facts.now) / 86400
        text = f"the clock is at least {days:.0f} days behind: certificates and signatures fail"
        yield Finding(_AREA, "clock", "problem", text, "timedatectl set-ntp true")


def _umask(umask: int | None) -> Iterator[Finding]:
    if umask is None:
        return
    if umask & 0o700:
        text = f"umask {umask:03o} takes your own rights to files that you make"
        yield Finding(_AREA, "umask", "problem", text, "umask 022")
    elif not umask & 0o002:
        text = f"umask {umask:03o}: any user of this machine may change what is made"
        yield Finding(_AREA, "umask", "warning", text, "umask 022")
    elif umask & 0o044:
        text = f"umask {umask:03o}: others cannot read what you put into a shared folder"
        yield Finding(_AREA, "umask", "note", text, "umask 022    # only for a shared folder")
    else:
        yield Finding(_AREA, "umask", "ok", f"{umask:03o}")


# -- the home -----------------------------------------------------------------------------


def _home(facts: MachineFacts) -> Iterator[Finding]:
    home = facts.home
    elsewhere = "export ARTCACHE_DIR=DIR    # a folder on a disk of this machine"
    if home.denied:
        yield Finding(_HOME, "write", "problem", f"{home.path}: {home.denied}", elsewhere)
    elif not home.there:
        yield Finding(_HOME, "write", "ok", f"{home.path} is made by the first fetch")
    else:
        text = f"{home.path}, {_counted(home.entries, 'artifact')}, {human_size(home.size)}"
        yield Finding(_HOME, "write", "ok", text)
    if not home.executes:
        text = f"programs in {home.path} cannot be started ({home.kind}, noexec or no such modes)"
        yield Finding(_HOME, "disk", "problem", text, elsewhere)
    elif home.kind.startswith("fuse"):
        text = f"on {home.kind} ({home.point}): slow, and without links; a home is for a local disk"
        yield Finding(_HOME, "disk", "warning", text, elsewhere)
    elif home.kind in _VOLATILE:
        text = f"on {home.kind}: it is in memory, and gone with the next boot"
        yield Finding(_HOME, "disk", "note", text)
    yield from _room(facts)
    yield from _contents(home)


def _room(facts: MachineFacts) -> Iterator[Finding]:
    free, weight = facts.home.free, facts.weight
    if free is None:
        return
    if weight and free < weight.tree:
        text = f"{human_size(free)} free; {weight.name} takes {human_size(weight.tree)}"
    else:
        text = f"{human_size(free)} free" + (f" on {facts.home.kind}" if facts.home.kind else "")
    fix = "artcache gc --max-size 5G"
    if free < _SPARE:
        yield Finding(_HOME, "room", "problem", text, fix)
    elif weight and free < weight.tree:
        yield Finding(_HOME, "room", "warning", text, fix)
    else:
        yield Finding(_HOME, "room", "ok", text)


def _contents(home: HomeFacts) -> Iterator[Finding]:
    if home.broken:
        text = f"{_counted(len(home.broken), 'broken entry')}: {home.broken[0]}"
        fix = "artcache ls    # names each; the next fetch of it makes it anew"
        yield Finding(_HOME, "entries", "warning", text, fix)
    if home.pending:
        text = (
            f"{_counted(home.pending, 'interrupted install')}: the next command ends or undoes it"
        )
        yield Finding(_HOME, "pending", "note", text, "artcache ls")
    if home.litter.get("quarantine"):
        text = (
            f"{human_size(home.litter['quarantine'])} in quarantine: trees that were found broken"
        )
        fix = (
            f"ls {shlex.quote(home.path)}/v1/quarantine    # artcache gc removes them after 30 days"
        )
        yield Finding(_HOME, "quarantine", "note", text, fix)
    rest = {name: size for name, size in home.litter.items() if size and name != "quarantine"}
    if rest:
        text = ", ".join(f"{human_size(size)} in {name}" for name, size in rest.items())
        large = sum(rest.values()) >= _LITTER
        yield Finding(_HOME, "litter", "warning" if large else "note", text, "artcache gc")


def _target(target: Target) -> Finding:
    if target.denied:
        fix = "choose another folder for --to"
        return Finding(_HOME, "to", "problem", f"{target.path}: {target.denied}", fix)
    if not target.executes:
        text = f"programs in {target.path} cannot be started"
        return Finding(_HOME, "to", "warning", text, "choose a folder on a local disk for --to")
    how = "reflinks" if target.reflinks else "hard links" if target.links else ""
    if how:
        return Finding(_HOME, "to", "ok", f"{target.path} gets {how}: no bytes are copied")
    text = f"{target.path} gets copies: it is not on the home's file system, or that has no links"
    return Finding(_HOME, "to", "note", text)


# -- settings -----------------------------------------------------------------------------


def judge_settings(facts: SettingsFacts) -> Iterator[Finding]:
    area = "settings"
    for error in facts.errors:
        yield Finding(area, "config", "problem", str(error), error.hint)
    for path in facts.ignored:
        text = f"{path} is ignored: neither you nor root owns it"
        yield Finding(area, "config", "warning", text, f"chown $USER {shlex.quote(path)}")
    for path in facts.files:
        yield Finding(area, "config", "ok", f"read {path}")
    for setting in facts.settings:
        yield Finding(area, setting.name, "ok", f"{setting.value} ({setting.origin})")
    for name, near in facts.unknown.items():
        if near:
            text = f"nothing reads {name}; was {near} meant?"
            fix = f'export {near}="${name}"; unset {name}'
            yield Finding(area, "environment", "warning", text, fix)
        else:
            yield Finding(area, "environment", "note", f"nothing reads {name}", f"unset {name}")


# -- words --------------------------------------------------------------------------------


def _counted(number: int, what: str) -> str:
    several = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else several}"
