"""NVIDIA's wheels on PyPI that this recipe knows: exact versions, sizes, digests.

Pure tables, so that a key needs no network. The versions that belong together
are those that the project `cuda-toolkit` of each release names; a compiler of
one release with headers of another does not work.

nvcc is in the wheels from CUDA 13 on. Of CUDA 11 and 12 there are only the
libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from artcache.errors import UsageError
from artcache.toolchain import CudaVersion, GpuArch, compiles_for

X86, ARM = "linux-x86_64", "linux-aarch64"
PLATFORMS = (X86, ARM)
LIBC = "glibc2.27"
"""What the newest tag among these wheels asks for: `manylinux_2_27`."""


class Wheel(NamedTuple):
    """One exact version of one project."""

    project: str
    version: str
    packed: int
    """Megabytes of the x86-64 wheel, about."""
    unpacked: int
    digests: Mapping[str, str] = {}
    """SHA-256 by platform; none for a version that only the user named."""

    def __str__(self) -> str:
        return f"{self.project}=={self.version}"


def _wheel(
    project: str, version: str, packed: int, unpacked: int, x86: str, arm: str = ""
) -> Wheel:
    digests = {X86: x86, **({ARM: arm} if arm else {})}
    return Wheel(project, version, packed, unpacked, digests)


_CUDART_13_0 = _wheel(
    *("nvidia-cuda-runtime", "13.0.96", 3, 8),
    "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
)
_CUBLAS_13_0 = _wheel(
    *("nvidia-cublas", "13.1.0.3", 424, 598),
    "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
    "c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2",
)
_CURAND_13_0 = _wheel(
    *("nvidia-curand", "10.4.0.35", 60, 135),
    "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
)
_CUDART_13_5 = _wheel(
    *("nvidia-cuda-runtime", "13.5.37", 3, 9),
    "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
    "de2dc5a7367974228b0a69588a9acc9340d3768bef1bf38bf0801eb08497cd2d",
)
_CUBLAS_13_5 = _wheel(
    *("nvidia-cublas", "13.10.0.20", 445, 611),
    "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
    "c5f3418c0a845232a8cabc58f6fa52cfae7d8bd3680d94c3907aca710fd48d70",
)
_CURAND_13_5 = _wheel(
    *("nvidia-curand", "10.4.5.25", 78, 108),
    "22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529",
    "07c75d8ba14b627d1a01d2c1bfa1eece88f25d564d3aae7e6b6fb44f7bbec9c1",
)

TOOLCHAINS: Mapping[CudaVersion, tuple[Wheel, ...]] = {
    CudaVersion(13, 0): (
        _wheel(
            *("nvidia-cuda-nvcc", "13.0.88", 38, 117),
            "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
            "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f",
        ),
        _wheel(
            *("nvidia-cuda-crt", "13.0.88", 1, 1),
            "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
            "ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003",
        ),
        _wheel(
            *("nvidia-nvvm", "13.0.88", 62, 141),
            "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
            "c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1",
        ),
        _wheel(
            *("nvidia-cuda-cccl", "13.0.85", 4, 15),
            "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
            "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c",
        ),
        *(_CUDART_13_0, _CUBLAS_13_0, _CURAND_13_0),
    ),
    CudaVersion(13, 5): (
        _wheel(
            *("nvidia-cuda-nvcc", "13.5.37", 48, 150),
            "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7",
            "588eda18eb5076ae859fe272844b526459228af22df0b117f54eec3aa82bc9c8",
        ),
        _wheel(
            *("nvidia-cuda-crt", "13.5.37", 1, 2),
            "e898b7f73d3035fa89915a3f7bf3b54a73e90249746111aed295822c4729bb29",
            "9ed2c565fdf3244fa6719769a80a466b85bfd4b1467ea339353bc91c971d09e0",
        ),
        _wheel(
            *("nvidia-nvvm", "13.5.37", 76, 178),
            "c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070",
            "b659bd3115b7ac7ec8931e67d0e2c0dd09cd35b08a6a7372df6f8f22c67da80a",
        ),
        _wheel(
            *("nvidia-cuda-cccl", "13.3.5.0.6", 5, 21),
            "d5230098fa2df5021e1a00c0c4eee41797671a91119d31e892463e5ccf3ee326",
            "6f30b8076b3e69951c459c94ae190bde51924b320076ebaec376d36848b4c76e",
        ),
        *(_CUDART_13_5, _CUBLAS_13_5, _CURAND_13_5),
    ),
}
"""All that it takes to compile and link darknet, by release."""

DEFAULT = CudaVersion(13, 0)
"""Of the newest major the oldest release: its binaries run on every driver of that major."""

RUNTIMES: Mapping[CudaVersion, tuple[Wheel, ...]] = {
    CudaVersion(11, 8): (
        _wheel(
            *("nvidia-cuda-runtime-cu11", "11.8.89", 1, 4),
            "92d04069a987e1fbc9213f8376d265df0f7bb42617d44f5eda1f496acea7f2d1",
        ),
        _wheel(
            *("nvidia-cublas-cu11", "11.11.3.6", 418, 690),
            "60252822adea5d0b10cd990a7dc7bedf7435f30ae40083c7a624a85a43225abc",
        ),
        _wheel(
            *("nvidia-curand-cu11", "10.3.0.86", 59, 110),
            "cd4cffbf78bb06580206b4814d5dc696d1161c902aae37b2bba00056832379e6",
        ),
        _wheel(
            *("nvidia-cuda-nvrtc-cu11", "11.8.89", 24, 60),
            "a8d02f3cba345be56b1ffc3e74d8f61f02bb758dd31b0f20e12277a5a244f756",
        ),
    ),
    CudaVersion(12, 9): (
        _wheel(
            *("nvidia-cuda-runtime-cu12", "12.9.79", 4, 10),
            "25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3",
            "83469a846206f2a733db0c42e223589ab62fd2fabac4432d2f8802de4bded0a4",
        ),
        _wheel(
            *("nvidia-cublas-cu12", "12.9.1.4", 582, 856),
            "453611eb21a7c1f2c2156ed9f3a45b691deda0440ec550860290dc901af5b4c2",
            "7a950dae01add3b415a5a5cdc4ec818fb5858263e9cca59004bb99fdbbd3a5d6",
        ),
        _wheel(
            *("nvidia-curand-cu12", "10.3.10.19", 69, 170),
            "49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e",
            "de663377feb1697e1d30ed587b07d5721fdd6d2015c738d7528a6002a6134d37",
        ),
        _wheel(
            *("nvidia-cuda-nvrtc-cu12", "12.9.86", 90, 228),
            "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
            "096d4de6bda726415dfaf3198d4f5c522b8e70139c97feef5cd2ca6d4cd9cead",
        ),
    ),
    CudaVersion(13, 0): (
        *(_CUDART_13_0, _CUBLAS_13_0, _CURAND_13_0),
        _wheel(
            *("nvidia-cuda-nvrtc", "13.0.88", 91, 229),
            "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
            "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
        ),
    ),
    CudaVersion(13, 5): (
        *(_CUDART_13_5, _CUBLAS_13_5, _CURAND_13_5),
        _wheel(
            *("nvidia-cuda-nvrtc", "13.5.37", 59, 149),
            "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
            "36e4fa2a8ada293f5693d308e531c196ab6f91cf7a0ff479bf96a537d43a6096",
        ),
    ),
}
"""The shared libraries that a built darknet needs. cuBLAS and cuDNN load nvrtc when they want it.

One release serves all of its major up to itself: the vendor promises that of minor versions.
"""

CUDNNS: Mapping[tuple[int, int], Wheel] = {
    (11, 8): _wheel(
        *("nvidia-cudnn-cu11", "8.9.6.50", 700, 1060),
        "319a8f7ca3d65139f1b69998595c7076ae0e4271a325e5dfde50a3ca31f55584",
    ),
    (11, 9): _wheel(
        *("nvidia-cudnn-cu11", "9.10.2.21", 600, 900),
        "e69235a0035588490c971432b5413f85791728089ec97db55aed72f90d7890f2",
    ),
    (12, 8): _wheel(
        *("nvidia-cudnn-cu12", "8.9.7.29", 705, 1070),
        "adf4f59ed7a1341103822ed8df6e144f4d47ea8b10d9bf0ea0047ba738fd7b02",
    ),
    # 9.10 is the last that has code for GPUs before sm_75.
    (12, 9): _wheel(
        *("nvidia-cudnn-cu12", "9.10.2.21", 707, 1054),
        "949452be657fa16687d0930933f032835951ef0892b37d2d53824d1a84dc97a8",
        "c9132cc3f8958447b4910a1720036d9eff5928cc3179b0a51fb6d167c6cc87d8",
    ),
    (13, 9): _wheel(
        *("nvidia-cudnn-cu13", "9.28.1.4", 517, 942),
        "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec",
        "759b6a4919951ed8ec603dec97b96f6a6396c8269b95b3d345526e2471fb433d",
    ),
}
"""By the majors of CUDA and cuDNN: the version that is taken when only the major is asked for."""


def toolchain_problem(cuda: CudaVersion, archs: Iterable[GpuArch], platform: str) -> str:
    """Why the wheels make no toolchain of this version for these targets; empty if they do."""
    if platform not in PLATFORMS:
        return f"NVIDIA has no wheels for {platform}"
    if cuda.major < 13:
        return f"NVIDIA's wheels of CUDA {cuda} have no nvcc: it is in those of CUDA 13 and newer"
    if cuda not in TOOLCHAINS:
        return f"this recipe knows no wheels of CUDA {cuda}"
    return "; ".join(filter(None, (compiles_for(cuda, arch) for arch in archs)))


def toolchain_hint(archs: Iterable[GpuArch], platform: str) -> str:
    """What the wheels can do instead, for a hint."""
    wanted = tuple(archs)
    known = [str(cuda) for cuda in TOOLCHAINS if not toolchain_problem(cuda, wanted, platform)]
    if known:
        return f"the wheels make CUDA {' and '.join(known)}"
    if platform not in PLATFORMS:
        return f"they are for {' and '.join(PLATFORMS)}"
    low = ", ".join(str(arch) for arch in wanted if compiles_for(DEFAULT, arch))
    return f"{low} needs a machine with a CUDA 12 toolkit (Colab has one): --toolchain machine"


def runtime(cuda: CudaVersion, platform: str) -> CudaVersion | None:
    """The release whose libraries serve a program made with `cuda`; None if there is none here."""
    fitting = [
        known
        for known, wheels in RUNTIMES.items()
        if known.major == cuda.major
        and known >= cuda
        and all(platform in wheel.digests for wheel in wheels)
    ]
    return min(fitting, default=None)


def cudnn(cuda_major: int, word: str, platform: str) -> Wheel:
    """The wheel of a cuDNN: `9`, or exactly `9.10.2.21`.

    Raises:
        UsageError: NVIDIA has no such wheel, or `word` is no version.
    """
    if re.fullmatch(r"\d+(\.\d+){3}", word):
        by_name = {str(wheel): wheel for wheel in CUDNNS.values()}
        exact = Wheel(f"nvidia-cudnn-cu{cuda_major}", word, 800, 1200)
        return by_name.get(str(exact), exact)
    found = CUDNNS.get((cuda_major, int(word))) if re.fullmatch(r"[0-9]{1,2}", word) else None
    if found and platform in found.digests:
        return found
    known = [f"{ours} for CUDA {cuda}" for (cuda, ours), w in CUDNNS.items() if platform in w[4]]
    raise UsageError(
        f"no wheel of cuDNN {word} for CUDA {cuda_major} on {platform} is known",
        hint=f"known are {', '.join(known) or 'none'}; a full version like 9.10.2.21 is asked of "
        "the package index; a tarball serves too: --source FILE",
    )
