"""What runs where: tables of literal cells, written down from NVIDIA's documents.

A cell is `R` (runs), `J` (runs after JIT) or `.` (does not run). They were
typed in from the rule quoted above each table and are not computed, so that
the code under test has something independent to agree with.

Sources (read in their 12.9 to 13.4 editions):
  [BIN]  CUDA C++ Programming Guide, "Binary Compatibility"
  [PTX]  CUDA C++ Programming Guide, "PTX Compatibility"
  [FAM]  CUDA Programming Guide, "Compute Capabilities", Feature Availability:
         architecture-specific (`a`) and family-specific (`f`) features
  [ISA]  PTX ISA, `.target` directive
  [MIN]  CUDA Compatibility, "Minor Version Compatibility", tables 1 and 2
  [FWD]  CUDA Compatibility, "Forward Compatibility"
  [REL]  CUDA Toolkit Release Notes, tables of driver versions
  [GPU]  developer.nvidia.com/cuda-gpus and /cuda-legacy-gpus
"""

from __future__ import annotations

import pytest

from artcache.compat import AFTER_JIT, NO, RUNS

OUTCOMES = {"R": RUNS, "J": AFTER_JIT, ".": NO}

# [BIN] "A cubin object generated for compute capability X.y will only execute on
# devices of compute capability X.z where z >= y. [...] Binary compatibility is
# supported only for the desktop. It is not supported for Tegra. Also, the binary
# compatibility between desktop and Tegra is not supported."
# [GPU] names the Tegras: 5.3, 6.2, 7.2, 8.7, 11.0 (10.1 before CUDA 13).
# [FAM] `a`: that device only. `f`: 100f on 10.0 and 10.3, 103f on 10.3, 110f on
# 11.0, 120f on 12.0 and 12.1, 121f on 12.1.
SASS = """
            5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7 8.9 9.0 10.0 10.3 11.0 12.0 12.1
sm_50       R   R   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_52       .   R   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_53       .   .   R   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_60       .   .   .   R   R   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_61       .   .   .   .   R   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_62       .   .   .   .   .   R   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_70       .   .   .   .   .   .   R   .   R   .   .   .   .   .   .    .    .    .    .
sm_72       .   .   .   .   .   .   .   R   .   .   .   .   .   .   .    .    .    .    .
sm_75       .   .   .   .   .   .   .   .   R   .   .   .   .   .   .    .    .    .    .
sm_80       .   .   .   .   .   .   .   .   .   R   R   .   R   .   .    .    .    .    .
sm_86       .   .   .   .   .   .   .   .   .   .   R   .   R   .   .    .    .    .    .
sm_87       .   .   .   .   .   .   .   .   .   .   .   R   .   .   .    .    .    .    .
sm_89       .   .   .   .   .   .   .   .   .   .   .   .   R   .   .    .    .    .    .
sm_90       .   .   .   .   .   .   .   .   .   .   .   .   .   R   .    .    .    .    .
sm_90a      .   .   .   .   .   .   .   .   .   .   .   .   .   R   .    .    .    .    .
sm_100      .   .   .   .   .   .   .   .   .   .   .   .   .   .   R    R    .    .    .
sm_100a     .   .   .   .   .   .   .   .   .   .   .   .   .   .   R    .    .    .    .
sm_100f     .   .   .   .   .   .   .   .   .   .   .   .   .   .   R    R    .    .    .
sm_101      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_101a     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    .
sm_103      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    R    .    .    .
sm_103a     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    R    .    .    .
sm_103f     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    R    .    .    .
sm_110      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    R    .    .
sm_110a     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    R    .    .
sm_110f     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    R    .    .
sm_120      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    R    R
sm_120a     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    R    .
sm_120f     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    R    R
sm_121      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    R
sm_121a     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    R
sm_121f     .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    R
"""

# [PTX] "PTX code produced for some specific compute capability can always be compiled
# to binary code of greater or equal compute capability."
# [ISA] PTX for an `a` target runs on that target only, for an `f` target on targets of
# its family that are as high or higher.
# The guide would let PTX cross between discrete GPUs and Tegra; artcache doesn't (DESIGN,
# section 6): the driver and the libraries around it are other ones there.
PTX = """
            5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7 8.9 9.0 10.0 10.3 11.0 12.0 12.1
compute_50  J   J   .   J   J   .   J   .   J   J   J   .   J   J   J    J    .    J    J
compute_52  .   J   .   J   J   .   J   .   J   J   J   .   J   J   J    J    .    J    J
compute_53  .   .   J   .   .   J   .   J   .   .   .   J   .   .   .    .    J    .    .
compute_60  .   .   .   J   J   .   J   .   J   J   J   .   J   J   J    J    .    J    J
compute_61  .   .   .   .   J   .   J   .   J   J   J   .   J   J   J    J    .    J    J
compute_62  .   .   .   .   .   J   .   J   .   .   .   J   .   .   .    .    J    .    .
compute_70  .   .   .   .   .   .   J   .   J   J   J   .   J   J   J    J    .    J    J
compute_72  .   .   .   .   .   .   .   J   .   .   .   J   .   .   .    .    J    .    .
compute_75  .   .   .   .   .   .   .   .   J   J   J   .   J   J   J    J    .    J    J
compute_80  .   .   .   .   .   .   .   .   .   J   J   .   J   J   J    J    .    J    J
compute_86  .   .   .   .   .   .   .   .   .   .   J   .   J   J   J    J    .    J    J
compute_87  .   .   .   .   .   .   .   .   .   .   .   J   .   .   .    .    J    .    .
compute_89  .   .   .   .   .   .   .   .   .   .   .   .   J   J   J    J    .    J    J
compute_90  .   .   .   .   .   .   .   .   .   .   .   .   .   J   J    J    .    J    J
compute_90a .   .   .   .   .   .   .   .   .   .   .   .   .   J   .    .    .    .    .
compute_100 .   .   .   .   .   .   .   .   .   .   .   .   .   .   J    J    .    J    J
compute_100a .  .   .   .   .   .   .   .   .   .   .   .   .   .   J    .    .    .    .
compute_100f .  .   .   .   .   .   .   .   .   .   .   .   .   .   J    J    .    .    .
compute_101 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    J    .    .
compute_103 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    J    .    J    J
compute_103f .  .   .   .   .   .   .   .   .   .   .   .   .   .   .    J    .    .    .
compute_110 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    J    .    .
compute_110f .  .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    J    .    .
compute_120 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    J    J
compute_120a .  .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    J    .
compute_120f .  .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    J    J
compute_121 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    J
compute_121f .  .   .   .   .   .   .   .   .   .   .   .   .   .   .    .    .    .    J
"""

# [PTX] and [BIN] together: machine code is taken where it fits, PTX else. These are the
# flags that darknet, PyTorch and the article build with, on the GPUs that notebook
# services lend. [GPU] P100 6.0, V100 7.0, T4 7.5, A100 8.0, A10 8.6, L4 8.9, H100 9.0,
# B200 10.0, RTX PRO 6000 12.0.
SERVICES = """
                              6.0 7.0 7.5 8.0 8.6 8.9 9.0 10.0 12.0
sm_75                         .   .   R   .   .   .   .   .    .
sm_75+compute_75              .   .   R   J   J   J   J   J    J
sm_60+sm_70+sm_75             R   R   R   .   .   .   .   .    .
sm_75+sm_80+sm_90             .   .   R   R   R   R   R   .    .
sm_75+sm_80+sm_90+compute_90  .   .   R   R   R   R   R   J    J
sm_80+compute_60              J   J   J   R   R   R   J   J    J
sm_80+sm_86+sm_89             .   .   .   R   R   R   .   .    .
sm_90a+compute_90a            .   .   .   .   .   .   R   .    .
sm_90a+compute_90             .   .   .   .   .   .   R   J    J
sm_100f+sm_120f               .   .   .   .   .   .   .   R    R
sm_75+sm_120                  .   .   R   .   .   .   .   .    R
compute_52                    J   J   J   J   J   J   J   J    J
"""

# [MIN] "applications compiled with a CUDA Toolkit release from within a CUDA major
# release family can run [...] on systems having at least the minimum required driver":
# 11.x 450.80.02, 12.x 525.60.13, 13.x 580.65.06; before 11 each release its own driver:
# 10.1 418.39, 10.2 440.33. Newer drivers run everything older.
DRIVERS_SASS = """
      418.39 440.33 450.80.02 470.57.02 515.43.04 525.60.13 535.54.03 550.54.14 570.26 580.65.06
10.1  R      R      R         R         R         R         R         R         R      R
10.2  .      R      R         R         R         R         R         R         R      R
11.0  .      .      R         R         R         R         R         R         R      R
11.4  .      .      R         R         R         R         R         R         R      R
11.8  .      .      R         R         R         R         R         R         R      R
12.0  .      .      .         .         .         R         R         R         R      R
12.2  .      .      .         .         .         R         R         R         R      R
12.4  .      .      .         .         .         R         R         R         R      R
12.8  .      .      .         .         .         R         R         R         R      R
12.9  .      .      .         .         .         R         R         R         R      R
13.0  .      .      .         .         .         .         .         .         .      R
13.1  .      .      .         .         .         .         .         .         .      R
"""

# [MIN] "limited feature-set": PTX that a newer toolkit made can't be compiled by an older
# driver, be it of the same major. [REL] the CUDA of each driver: 418 10.1, 440 10.2,
# 450 11.0, 470 11.4, 515 11.7, 525 12.0, 535 12.2, 550 12.4, 570 12.8, 580 13.0.
DRIVERS_PTX = """
      418.39 440.33 450.80.02 470.57.02 515.43.04 525.60.13 535.54.03 550.54.14 570.26 580.65.06
10.1  J      J      J         J         J         J         J         J         J      J
10.2  .      J      J         J         J         J         J         J         J      J
11.0  .      .      J         J         J         J         J         J         J      J
11.4  .      .      .         J         J         J         J         J         J      J
11.8  .      .      .         .         .         J         J         J         J      J
12.0  .      .      .         .         .         J         J         J         J      J
12.2  .      .      .         .         .         .         J         J         J      J
12.4  .      .      .         .         .         .         .         J         J      J
12.8  .      .      .         .         .         .         .         .         J      J
12.9  .      .      .         .         .         .         .         .         .      J
13.0  .      .      .         .         .         .         .         .         .      J
13.1  .      .      .         .         .         .         .         .         .      .
"""
DRIVER_CUDA = {
    "418.39": "10.1",
    "440.33": "10.2",
    "450.80.02": "11.0",
    "470.57.02": "11.4",
    "515.43.04": "11.7",
    "525.60.13": "12.0",
    "535.54.03": "12.2",
    "550.54.14": "12.4",
    "570.26": "12.8",
    "580.65.06": "13.0",
}

# glibc's symbol versions: a library offers all up to its own release ("GNU C Library
# release notes"; the dynamic linker refuses a version it does not find).
LIBC = """
       glibc2.17 glibc2.27 glibc2.31 glibc2.34 glibc2.35 glibc2.36 glibc2.39 musl
2.2.5  R         R         R         R         R         R         R         .
2.17   R         R         R         R         R         R         R         .
2.27   .         R         R         R         R         R         R         .
2.29   .         .         R         R         R         R         R         .
2.34   .         .         .         R         R         R         R         .
2.35   .         .         .         .         R         R         R         .
2.38   .         .         .         .         .         .         R         .
none   R         R         R         R         R         R         R         R
"""


def cells(table):
    """Every cell of a table as (row, column, outcome)."""
    head, *rows = [line.split() for line in table.strip().splitlines()]
    for name, *marks in rows:
        assert len(marks) == len(head), name
        for column, mark in zip(head, marks, strict=True):
            yield pytest.param(name, column, OUTCOMES[mark], id=f"{name} on {column}")
