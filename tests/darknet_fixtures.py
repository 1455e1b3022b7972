"""What the darknet tests share: a tiny stand-in tree, real sources, a real CUDA toolkit.

Plain functions instead of fixtures, each cached for the session, so that the
test modules can import them. What needs the network is kept in
`~/.cache/artcache-tests` and skipped, with the reason, where it cannot be had.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from artcache.errors import SourceUnavailable
from artcache.process import Runner
from artcache.recipe import BuildContext, Request, SmokeContext, Variant
from artcache.toolchain import CudaVersion, Cudnn, GpuArch, HostFacts, Toolkit
from darknet_recipe import recipe
from darknet_recipe.debian import upstream_tarball
from darknet_recipe.flavours import DEBIAN

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "artcache-tests"
CPU_HOST = HostFacts(libc="glibc2.36")

_CLONE_OF = "ARTCACHE_TEST_DARKNET_"
# Read here, since the tests themselves run without the user's ARTCACHE_ variables.
_REAL_CLONES = {k: Path(v).absolute() for k, v in os.environ.items() if k.startswith(_CLONE_OF)}

TINY_MAKEFILE = """\
GPU=1
OPENMP=0
EXEC=darknet
OBJDIR=./obj/
CFLAGS=-O1
ifeq ($(GPU), 1)
COMMON+= -DGPU -I/usr/local/cuda/include/
LDFLAGS+= -L/usr/local/cuda/lib64 -lcudart
endif
ifeq ($(OPENMP), 1)
CFLAGS+= -fopenmp
endif
OBJS=$(OBJDIR)main.o
all: obj $(EXEC)
$(EXEC): $(OBJS)
\tgcc $(COMMON) $(CFLAGS) $^ -o $@ $(LDFLAGS)
$(OBJDIR)%.o: src/%.c Makefile
\tgcc $(COMMON) $(CFLAGS) -c $< -o $@
obj:
\tmkdir -p obj
"""
TINY_MAIN = """\
#include <stdio.h>
int main(void) {
    char name[256] = "";
    if (scanf("%255s", name) == 1) printf("%s: Predicted in 0.1 milli-seconds.\\n", name);
    puts("built " __DATE__ " as " __FILE__);
    return 0;
}
"""


def tiny_tree(folder: Path, *, main: str = TINY_MAIN, makefile: str = TINY_MAKEFILE) -> Path:
    """A tree that looks and builds like darknet's, in a tenth of a second."""
    for name, text in {
        "Makefile": makefile,
        "src/main.c": main,
        "cfg/yolo.cfg": "[net]\n",
        "data/labels/65_0.png": "A",
        "data/coco.names": "person\n",
        "LICENSE": "yours\n",
        "README.md": "tiny\n",
        "obj/stale.o": "old",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def git(folder: Path, *words: str) -> str:
    """Run git in a repository of the test's own, as somebody."""
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.invalid")
    result = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return result.stdout.strip()


def repository(folder: Path) -> Path:
    """Make a git repository of all files in `folder`, with one commit on `master`."""
    git(folder, "init", "--quiet", "--initial-branch=master")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message=all of it")
    return folder


def only_variant(request: Request, host: HostFacts = CPU_HOST) -> Variant:
    (variant,) = recipe.variants(host, request, Runner())
    return variant


def build(variant: Variant, folder: Path, host: HostFacts = CPU_HOST) -> BuildContext:
    """Build a variant below `folder` as the cache would."""
    for name in ("scratch", "tree", "smoke"):
        (folder / name).mkdir(parents=True)
    log = folder / "log"
    with log.open("wb") as stream:
        context = BuildContext(
            key=variant.key,
            plan=variant.plan,
            host=host,
            scratch=folder / "scratch",
            tree=folder / "tree",
            downloads=CACHE,
            jobs=os.cpu_count() or 1,
            runner=Runner(log=stream, log_path=str(log)),
            phase=lambda text: None,
            say=lambda text: None,
            fetch=_no_other_recipe,
            provenance={},
        )
        recipe.build(context)
    return context


def _no_other_recipe(name: str, request: Request) -> Path:
    raise AssertionError(f"darknet asked for the recipe {name}")


def smoke(context: BuildContext) -> None:
    recipe.smoke(
        SmokeContext(
            key=context.key,
            plan=context.plan,
            host=context.host,
            tree=context.tree,
            scratch=context.tree.parent / "smoke",
            runner=Runner(),
        )
    )


def files(tree: Path) -> dict[str, bytes]:
    """Path -> bytes of every file below `tree`."""
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


@functools.cache
def debian_tarball() -> Path:
    """The real tree of pjreddie's darknet, as Debian publishes it."""
    scratch = CACHE / f"apt-{os.getpid()}"
    scratch.mkdir(parents=True)
    assert DEBIAN.package
    try:
        return upstream_tarball(Runner(), DEBIAN.package, scratch, CACHE)
    except SourceUnavailable as error:
        pytest.skip(f"no real darknet source: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def real_clone(flavour: str) -> Path:
    """A real clone of a fork, from `ARTCACHE_TEST_DARKNET_<FLAVOUR>`."""
    name = f"{_CLONE_OF}{flavour.upper()}"
    if name not in _REAL_CLONES:
        pytest.skip(f"set {name} to a clone of the fork to build it")
    return _REAL_CLONES[name]


@functools.cache
def gpu_host() -> HostFacts:
    """A machine without a GPU that can compile for every GPU, with cuDNN.

    nvcc and its headers are this machine's; cuBLAS, cuRAND and cuDNN come as
    the vendor's wheels, about 1 GB once.
    """
    nvcc = shutil.which("nvcc", path=f"/usr/local/cuda/bin:{os.environ['PATH']}")
    if not nvcc:
        pytest.skip("no nvcc on this machine")
    said = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    full = said.partition(", V")[2].split()[0]
    version = CudaVersion.parse(full)
    wheels = _wheels(version)
    root = CACHE / f"cuda-{version}"
    if not root.is_dir():
        _lay_toolkit(root, Path(nvcc).resolve().parent.parent, wheels)
    cudnn = wheels / "nvidia/cudnn"
    (info,) = wheels.glob("nvidia_cudnn_*.dist-info")
    return HostFacts(
        libc="glibc2.36",
        toolkits=(Toolkit(str(root), version, full),),
        cudnns=(
            Cudnn(
                include=str(cudnn / "include"),
                library=str(cudnn / "lib"),
                version=info.name.split("-")[1].removesuffix(".dist"),
                cuda_major=version.major,
            ),
        ),
    )


@pytest.fixture(scope="session")
def gpu_darknet(tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """Debian's darknet for sm_75, with cuDNN: built once, to look at and to compare with."""
    host = gpu_host()
    request = Request(source="debian", archs=GpuArch.parse_list("75"))
    return build(only_variant(request, host), tmp_path_factory.mktemp("gpu") / "b", host)


def _wheels(cuda: CudaVersion) -> Path:
    """The vendor's libraries for that toolkit, unpacked by pip."""
    wanted = {
        CudaVersion(13, 0): ("nvidia-cublas==13.0.*", "nvidia-curand==10.4.0.*"),
        CudaVersion(12, 8): ("nvidia-cublas-cu12==12.8.*", "nvidia-curand-cu12==10.3.9.*"),
    }
    if cuda not in wanted:
        pytest.skip(f"no wheels are known here for nvcc {cuda}")
    target = CACHE / f"wheels-{cuda}"
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    words = [*command, str(partial), *wanted[cuda], f"nvidia-cudnn-cu{cuda.major}==9.*"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        pytest.skip(f"the vendor's wheels could not be had: {done.stderr.strip()[-300:]}")
    partial.rename(target)
    return target


def _lay_toolkit(root: Path, machine: Path, wheels: Path) -> None:
    """One root of links: what the vendor's installer would have put in one place."""
    partial = root.with_name(f"{root.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    for name in ("bin", "nvvm"):
        (partial / name).symlink_to(machine / name)
    parts = [part for part in wheels.glob("nvidia/*") if part.name != "cudnn"]
    _union(partial / "include", [machine / "include", *(part / "include" for part in parts)])
    _union(partial / "lib64", [machine / "lib64", *(part / "lib" for part in parts)])
    for library in list((partial / "lib64").glob("lib*.so.*")):
        plain = library.with_name(library.name.partition(".so")[0] + ".so")
        if not plain.exists():
            plain.symlink_to(library.name)
    partial.rename(root)


def _union(folder: Path, parts: Iterable[Path]) -> None:
    folder.mkdir()
    for part in parts:
        for path in part.iterdir():
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
