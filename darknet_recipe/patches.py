"""The two small repairs that old darknet trees need, each with the reason and its condition.

Pure. They are decided from what the key knows (the cuDNN and CUDA versions),
never from what a tree looks like, and leave a tree that does not need them as
it is: so a key can be named before any source is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from artcache.digest import xxh3
from artcache.toolchain import CudaVersion

CUDNN_HEADER = """\
/* cuDNN 8 dropped the functions that chose a convolution algorithm by preference
 * and the preferences themselves. These do the same with the functions that
 * replaced them: the first (fastest) one that worked and stays in the limit. */
#if defined(CUDNN) && !defined(ARTCACHE_CUDNN_H)
#define ARTCACHE_CUDNN_H
#include <cudnn.h>
#if CUDNN_MAJOR >= 8
enum { artcache_no_workspace, artcache_prefer_fastest, artcache_workspace_limit };
#define CUDNN_CONVOLUTION_FWD_NO_WORKSPACE artcache_no_workspace
#define CUDNN_CONVOLUTION_FWD_PREFER_FASTEST artcache_prefer_fastest
#define CUDNN_CONVOLUTION_FWD_SPECIFY_WORKSPACE_LIMIT artcache_workspace_limit
#define CUDNN_CONVOLUTION_BWD_DATA_NO_WORKSPACE artcache_no_workspace
#define CUDNN_CONVOLUTION_BWD_DATA_PREFER_FASTEST artcache_prefer_fastest
#define CUDNN_CONVOLUTION_BWD_DATA_SPECIFY_WORKSPACE_LIMIT artcache_workspace_limit
#define CUDNN_CONVOLUTION_BWD_FILTER_NO_WORKSPACE artcache_no_workspace
#define CUDNN_CONVOLUTION_BWD_FILTER_PREFER_FASTEST artcache_prefer_fastest
#define CUDNN_CONVOLUTION_BWD_FILTER_SPECIFY_WORKSPACE_LIMIT artcache_workspace_limit
typedef int cudnnConvolutionFwdPreference_t;
typedef int cudnnConvolutionBwdDataPreference_t;
typedef int cudnnConvolutionBwdFilterPreference_t;
#define ARTCACHE_CHOOSE(name, perf_t, algo_t, a_t, b_t, c_t) \\
    static inline cudnnStatus_t cudnnGetConvolution##name##Algorithm(cudnnHandle_t handle, \\
        a_t a, b_t b, cudnnConvolutionDescriptor_t convolution, c_t c, int preference, \\
        size_t limit, algo_t *chosen) \\
    { \\
        perf_t found[16]; \\
        int i, count = 0; \\
        cudnnStatus_t status = cudnnGetConvolution##name##Algorithm_v7( \\
            handle, a, b, convolution, c, 16, &count, found); \\
        if (status != CUDNN_STATUS_SUCCESS) return status; \\
        if (preference == artcache_no_workspace) limit = 0; \\
        for (i = 0; i < count; ++i) { \\
            if (found[i].status != CUDNN_STATUS_SUCCESS) continue; \\
            if (preference != artcache_prefer_fastest && found[i].memory > limit) continue; \\
            *chosen = found[i].algo; \\
            return CUDNN_STATUS_SUCCESS; \\
        } \\
        return CUDNN_STATUS_NOT_SUPPORTED; \\
    }
ARTCACHE_CHOOSE(Forward, cudnnConvolutionFwdAlgoPerf_t, cudnnConvolutionFwdAlgo_t,
    cudnnTensorDescriptor_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t)
ARTCACHE_CHOOSE(BackwardData, cudnnConvolutionBwdDataAlgoPerf_t, cudnnConvolutionBwdDataAlgo_t,
    cudnnFilterDescriptor_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t)
ARTCACHE_CHOOSE(BackwardFilter, cudnnConvolutionBwdFilterAlgoPerf_t,
    cudnnConvolutionBwdFilterAlgo_t,
    cudnnTensorDescriptor_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t)
#endif
#endif
"""


class Patch(NamedTuple):
    """One repair: a file that goes into the tree, compiler words, or both."""

    name: str
    reason: str
    min_cuda: CudaVersion | None = None
    """Applies from this CUDA version on; None: never because of CUDA."""
    min_cudnn: int | None = None
    """Applies from this major version of cuDNN on; None: never because of cuDNN."""
    path: str = ""
    """Where `text` goes, relative to the tree."""
    text: str = ""
    flags: str = ""
    """For every compiler call: gcc, g++ and nvcc understand them."""
    always: bool = False
    """Applies whatever the versions are."""
    replaced: tuple[tuple[str, str], ...] = ()
    """Words in CMake's files, each with what takes its place."""

    def applies(self, cuda: CudaVersion | None, cudnn: int | None) -> bool:
        by_cuda = self.min_cuda is not None and cuda is not None and cuda >= self.min_cuda
        by_cudnn = self.min_cudnn is not None and cudnn is not None and cudnn >= self.min_cudnn
        return self.always or by_cuda or by_cudnn


CUDNN_8 = Patch(
    name="cudnn-8-preferences",
    reason="cuDNN 8 dropped the choice of algorithms by preference",
    min_cudnn=8,
    path="src/artcache_cudnn.h",
    text=CUDNN_HEADER,
    flags="-include src/artcache_cudnn.h",
)
CUDA_13 = Patch(
    name="cuda-13-synchronize",
    reason="CUDA 13 dropped cudaThreadSynchronize, long an alias of cudaDeviceSynchronize",
    min_cuda=CudaVersion(13, 0),
    flags="-DcudaThreadSynchronize=cudaDeviceSynchronize",
)
PORTABLE = Patch(
    name="any-cpu",
    reason="hank-ai's files compile for the CPU that compiles, and the result is to run on others",
    always=True,
    replaced=(
        ("-march=native", "-march=haswell"),
        ("-mtune=native", "-mtune=generic"),
        ("-msse4a", "-msse4.2"),  # AMD's alone
    ),
)
ALL: tuple[Patch, ...] = (CUDNN_8, CUDA_13)
"""Those for a Makefile that nobody looked at."""


def applying(
    patches: Iterable[Patch], cuda: CudaVersion | None, cudnn: int | None
) -> tuple[Patch, ...]:
    """Those of `patches` that a build for these versions gets."""
    return tuple(patch for patch in patches if patch.applies(cuda, cudnn))


def digest(patches: Iterable[Patch]) -> str:
    """The key's `patches`: a digest of all that they put in; `none` for none."""
    parts: list[str] = []
    for patch in patches:
        parts += [patch.name, patch.path, patch.text, patch.flags]
        parts += [word for pair in patch.replaced for word in pair]
    return xxh3("\0".join(parts).encode()) if parts else "none"
