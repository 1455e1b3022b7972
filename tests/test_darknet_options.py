"""The pure half: what a request means on a host, and what make is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
from darknet_fixtures import CPU_HOST, only_variant

from artcache.errors import MissingTool, UsageError
from artcache.process import Runner
from artcache.recipe import Request, Variant
from artcache.toolchain import CudaVersion, Cudnn, Gpu, GpuArch, HostFacts, Toolkit
from darknet_recipe import flavours, libraries, recipe
from darknet_recipe.options import complete, gencode, make_words, switches
from darknet_recipe.patches import CUDA_13, CUDNN_8, applying, digest

CUDA_12 = Toolkit("/opt/cuda-12.8", CudaVersion(12, 8), "12.8.93")
CUDA_13_0 = Toolkit("/opt/cuda-13.0", CudaVersion(13, 0), "13.0.88", origin="wheels")
CUDNN_9 = Cudnn("/opt/cudnn/include", "/opt/cudnn/lib", "9.10.2")
T4 = HostFacts(gpus=(Gpu("T4", 75),), toolkits=(CUDA_12,), cudnns=(CUDNN_9,))


def variants(host: HostFacts, **request: object) -> list[Variant]:
    return list(recipe.variants(host, Request(**request), Runner()))  # type: ignore[arg-type]


def field(name: str, host: HostFacts, **request: object) -> object:
    return variants(host, **request)[0].key.get(name)


def options_of(host: HostFacts, **request: object) -> set[str]:
    return set(field("options", host, **request))  # type: ignore[call-overload]


# -- the default ---------------------------------------------------------------------------


def test_the_default_is_the_pinned_source_and_debian_behind_it() -> None:
    first, second = variants(CPU_HOST)

    assert first.key.get("source") == "https://github.com/AlexeyAB/darknet"
    assert first.key.get("commit") == "59596d7880f6504768df41d6daa586f5cb2b932f"
    assert second.key.get("source") == "https://github.com/pjreddie/darknet"
    assert second.key.get("commit") == "61c9d02ec461e30d55762ec7669d6a1d3c356fb2"
    assert first.note == ""
    assert "--source upstream" in second.note and "Debian" in second.note


def test_a_key_has_every_field_and_every_option() -> None:
    fields = variants(HostFacts(platform="linux-aarch64", libc="glibc2.39"))[0].key.fields

    assert fields == {
        "recipe": "darknet",
        "recipe_version": "1",
        "source": "https://github.com/AlexeyAB/darknet",
        "commit": "59596d7880f6504768df41d6daa586f5cb2b932f",
        "patches": "none",
        "cuda": "none",
        "arch": "none",
        "cudnn": "none",
        "options": (
            *("AVX=0", "CUDNN=0", "CUDNN_HALF=0", "GPU=0", "LIBSO=0", "OPENCV=0", "OPENMP=0"),
        ),
        "platform": "linux-aarch64",
        "libc": "glibc2.39",
    }


@pytest.mark.parametrize("request_", [{"source": "upstream"}, {"ref": flavours.ALEXEYAB.commit}])
def test_no_fallback_where_the_source_or_the_commit_was_named(request_: dict[str, str]) -> None:
    assert len(variants(CPU_HOST, **request_)) == 1
    assert variants(CPU_HOST, **request_)[0].key == variants(CPU_HOST)[0].key


def test_no_fallback_where_debians_tree_lacks_an_option() -> None:
    assert len(variants(CPU_HOST, options={"AVX": "1"})) == 1
    assert len(variants(CPU_HOST, options={"OPENMP": "1"})) == 2


@pytest.mark.parametrize("name", sorted(flavours.BY_NAME))
def test_every_known_name_has_a_pinned_commit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "opencv_version", lambda runner, needed_by="": "4.6.0")

    commit = only_variant(Request(source=name.upper())).key.get("commit")

    assert commit == flavours.BY_NAME[name].commit
    assert len(str(commit)) == 40


def test_naming_variants_starts_nothing_and_loads_little() -> None:
    program = (
        "from artcache.recipe import Request\n"
        "from artcache.toolchain import HostFacts\n"
        "from darknet_recipe import recipe\n"
        "recipe.variants(HostFacts(), Request(), None)\n"
        "import sys\n"
        "heavy = 'subprocess shutil tarfile tempfile lzma artcache.process darknet_recipe.git'\n"
        "print(*(name for name in heavy.split() if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


# -- CPU or GPU ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "request_"),
    [
        (HostFacts(), {}),
        (HostFacts(toolkits=(CUDA_12,), cudnns=(CUDNN_9,)), {}),
        (HostFacts(cuda_override=CudaVersion(12, 8)), {}),
        (HostFacts(), {"cudnn": "none", "options": {"GPU": "0", "CUDNN": "off"}}),
        (T4, {"cuda": "none"}),
        (T4, {"options": {"GPU": "0"}}),
    ],
)
def test_cpu_builds(host: HostFacts, request_: dict[str, object]) -> None:
    for variant in variants(host, **request_):
        fields = variant.key.fields
        assert (fields["cuda"], fields["arch"], fields["cudnn"]) == ("none", "none", "none")
        assert "GPU=0" in fields["options"] and "CUDNN=0" in fields["options"]
        assert fields["patches"] == "none"


def test_a_gpu_build_takes_all_from_the_host() -> None:
    fields = variants(T4)[0].key.fields

    assert (fields["cuda"], fields["arch"], fields["cudnn"]) == ("12.8", ("sm_75",), "9")
    assert "GPU=1" in fields["options"] and "CUDNN=1" in fields["options"]


def test_what_was_asked_for_wins_over_the_host() -> None:
    archs = GpuArch.parse_list("9.0+PTX, sm_80")
    fields = variants(T4, archs=archs, cuda="13.0.1", cudnn="8.9.7")[0].key.fields

    assert fields["arch"] == ("compute_90", "sm_80", "sm_90")
    assert (fields["cuda"], fields["cudnn"]) == ("13.0", "8")


def test_a_machine_without_anything_can_name_what_others_built() -> None:
    fields = variants(HostFacts(), archs=GpuArch.parse("75"), cuda="12.8", cudnn="9")[0].key.fields

    assert (fields["cuda"], fields["arch"], fields["cudnn"]) == ("12.8", ("sm_75",), "9")


def test_the_overrides_of_the_environment_count_as_the_hosts_own() -> None:
    host = HostFacts(arch_override=GpuArch.parse("80"), cuda_override=CudaVersion(12, 4))

    assert field("cuda", host) == "12.4"
    assert field("arch", host) == ("sm_80",)


def test_the_first_toolkit_that_can_is_taken() -> None:
    host = HostFacts(gpus=(Gpu("P100", 60),), toolkits=(CUDA_13_0, CUDA_12))

    assert field("cuda", host) == "12.8"
    assert field("cuda", host, archs=GpuArch.parse("75")) == "13.0"
    assert field("cuda", host, archs=GpuArch.parse("75"), toolchain="machine") == "12.8"
    assert field("cuda", host, archs=GpuArch.parse("75"), toolchain="/opt/cuda-12.8") == "12.8"


@pytest.mark.parametrize(
    ("cudnns", "request_", "expected"),
    [
        ((), {}, "9"),  # of the vendor's wheels
        ((), {"cuda": "10.2"}, "none"),
        ((), {"archs": GpuArch.parse("3.7"), "cuda": "11.8"}, "none"),
        ((CUDNN_9,), {}, "9"),
        ((CUDNN_9,), {"cudnn": "none"}, "none"),
        ((CUDNN_9,), {"options": {"CUDNN": "0"}}, "none"),
        ((Cudnn("i", "l", "9.1", cuda_major=13),), {"cuda": "10.2"}, "none"),
        ((Cudnn("i", "l", "9.1", cuda_major=13), Cudnn("i", "l", "8.9", cuda_major=12)), {}, "8"),
    ],
)
def test_which_cudnn(cudnns: tuple[Cudnn, ...], request_: dict[str, object], expected: str) -> None:
    host = HostFacts(gpus=T4.gpus, toolkits=(CUDA_12,), cudnns=cudnns)

    assert field("cudnn", host, **request_) == expected
    assert f"CUDNN={int(expected != 'none')}" in options_of(host, **request_)


@pytest.mark.parametrize(
    ("host", "request_", "message", "hint"),
    [
        (HostFacts(), {"cuda": "12.8"}, "no GPU to compile for", "--arch"),
        (HostFacts(), {"options": {"GPU": "1"}}, "no GPU to compile for", "--arch"),
        (HostFacts(), {"options": {"CUDNN": "1"}}, "CUDNN=1 contradicts", "--arch"),
        (HostFacts(), {"cudnn": "9"}, "--cudnn contradicts", "--arch"),
        (T4, {"cuda": "none", "archs": GpuArch.parse("75")}, "--arch contradicts", "leave"),
        (T4, {"cuda": "none", "options": {"GPU": "1"}}, "GPU=1 contradicts", "leave"),
        (T4, {"cuda": "12.8", "options": {"GPU": "0"}}, "--cuda contradicts", "leave"),
        (T4, {"cuda": "13.0", "archs": GpuArch.parse("60")}, "starts at sm_75", "CUDA 10.2 or"),
        (T4, {"cuda": "11.8", "archs": GpuArch.parse_list("75 120")}, "ends at", "12.8 or"),
        (T4, {"cuda": "11.8", "archs": GpuArch.parse_list("75 120")}, "ends at", "for sm_75"),
        (T4, {"cuda": "twelve"}, "no CUDA version", "12.8"),
        (T4, {"cudnn": "latest"}, "no cuDNN version", "9"),
        (T4, {"cudnn": "none", "options": {"CUDNN": "1"}}, "contradict each other", ""),
        (T4, {"cudnn": "none", "options": {"CUDNN_HALF": "1"}}, "needs a GPU build", "--cudnn 9"),
        (HostFacts(), {"options": {"AVX": "maybe"}}, "AVX cannot be 'maybe'", "AVX=1"),
        (HostFacts(), {"options": {"AVS": "1"}}, "no option 'AVS'", "AVX"),
        (HostFacts(), {"source": "debian", "options": {"AVX": "1"}}, "no AVX", "alexeyab, colab"),
        (HostFacts(), {"source": "alexyab"}, "no darknet source", "alexeyab?"),
    ],
)
def test_wishes_that_nobody_can_meet(
    host: HostFacts, request_: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        variants(host, **request_)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("toolkits", "message"),
    [
        ((), "no CUDA toolkit"),
        ((CUDA_13_0,), "CUDA 13.0 has no sm_60: it starts at sm_75"),
    ],
)
def test_a_gpu_without_a_compiler_for_it(toolkits: tuple[Toolkit, ...], message: str) -> None:
    host = HostFacts(gpus=(Gpu("P100", 60),), toolkits=toolkits)

    with pytest.raises(MissingTool, match=message) as caught:
        variants(host)
    assert "--cuda none" in caught.value.hint


def test_cudnn_that_is_not_there() -> None:
    host = HostFacts(gpus=T4.gpus, toolkits=T4.toolkits)

    assert field("cudnn", host, options={"CUDNN": "1"}) == "9"
    with pytest.raises(MissingTool, match="no cuDNN for CUDA 10"):
        variants(host, cuda="10.2", options={"CUDNN": "1"})


# -- words for make ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("sm_75", "-gencode arch=compute_75,code=sm_75"),
        ("compute_90", "-gencode arch=compute_90,code=compute_90"),
        ("90a", "-gencode arch=compute_90a,code=sm_90a"),
        ("12.0", "-gencode arch=compute_120,code=sm_120"),
    ],
)
def test_gencode(arch: str, words: str) -> None:
    assert [gencode(each) for each in GpuArch.parse(arch)] == [words]


def test_make_gets_every_option_and_only_the_architectures_asked_for() -> None:
    values = complete(switches({"OPENMP": "yes", "AVX": "off"}), gpu=True, cudnn=True)

    assert make_words(values, GpuArch.parse_list("75;80")) == [
        *("AVX=0", "CUDNN=1", "CUDNN_HALF=0", "GPU=1", "LIBSO=0", "OPENCV=0", "OPENMP=1"),
        *("DEBUG=0", "USE_CPP=0", "ZED_CAMERA=0", "ZED_CAMERA_v2_8=0"),
        "ARCH=-gencode arch=compute_75,code=sm_75 -gencode arch=compute_80,code=sm_80",
    ]


def test_all_spellings_of_a_value_are_one_key() -> None:
    keys = {
        variants(CPU_HOST, options={"OPENMP": word})[0].key
        for word in ("1", "on", "True", "YES", " 1 ")
    }
    assert len(keys) == 1


# -- patches -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "cuda", "cudnn", "names"),
    [
        ("alexeyab", "13.0", "9", []),
        ("pjreddie", "13.0", "9", ["cudnn-8-preferences", "cuda-13-synchronize"]),
        ("debian", "12.8", "9", ["cudnn-8-preferences"]),
        ("debian", "12.8", "7", []),
        ("debian", "13.0", "none", ["cuda-13-synchronize"]),
        ("colab", "13.0", "9", ["cudnn-8-preferences"]),
        ("https://example.invalid/my/darknet", "13.0", "9", ["cudnn-8-preferences", "cuda-13-"]),
    ],
)
def test_which_patches(source: str, cuda: str, cudnn: str, names: list[str]) -> None:
    (variant,) = variants(
        HostFacts(),
        source=source,
        ref="0" * 40 if "://" in source else None,
        archs=GpuArch.parse("75"),
        cuda=cuda,
        cudnn=cudnn,
    )
    chosen = [patch.name for patch in variant.plan.patches]

    assert [name[: len(want)] for name, want in zip(chosen, names, strict=True)] == names
    assert (variant.key.get("patches") == "none") == (not names)


def test_a_patchs_digest_covers_all_that_it_does() -> None:
    digests = {
        digest([CUDNN_8]),
        digest([CUDA_13]),
        digest([CUDNN_8, CUDA_13]),
        digest([CUDNN_8._replace(text="")]),
        digest([CUDNN_8._replace(flags="")]),
        digest([]),
    }
    assert len(digests) == 6
    assert applying([CUDNN_8, CUDA_13], None, None) == ()
