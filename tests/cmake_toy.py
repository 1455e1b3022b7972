"""A stand-in for hank-ai's darknet: its layout and its traps; and for the forks' homes."""

from __future__ import annotations

from pathlib import Path

import pytest

from darknet_recipe.flavours import Flavour

OPENCV = "4.6.0"
"""What its CMake file says that it found."""

TOP = """\
CMAKE_MINIMUM_REQUIRED (VERSION 3.24)
INCLUDE (CM_version.cmake)
PROJECT (Darknet LANGUAGES C VERSION ${DARKNET_VERSION_SHORT})
SET (CMAKE_POSITION_INDEPENDENT_CODE TRUE)
ADD_COMPILE_OPTIONS (-mtune=native -march=native)
OPTION (DARKNET_TRY_CUDA "" ON)
OPTION (DARKNET_TRY_OPENBLAS "" ON)
OPTION (ENABLE_SSE_AND_AVX "" ON)
MESSAGE (STATUS "Found OpenCV 4.6.0")
ADD_COMPILE_DEFINITIONS (VERSION="${DARKNET_VERSION_STRING}")
FOREACH (name DARKNET_TRY_CUDA DARKNET_TRY_OPENBLAS ENABLE_SSE_AND_AVX)
    IF (${name})
        ADD_COMPILE_DEFINITIONS (${name})
    ENDIF ()
ENDFOREACH ()
FIND_LIBRARY (GTEST c)
IF (GTEST)
    MESSAGE (FATAL_ERROR "tests would be built")
ENDIF ()
ADD_SUBDIRECTORY (src-cli)
"""
VERSION = """\
EXECUTE_PROCESS (COMMAND git describe --tags --dirty --long
    OUTPUT_VARIABLE DARKNET_VERSION_STRING OUTPUT_STRIP_TRAILING_WHITESPACE)
STRING (REGEX MATCH "v([0-9]+)\\.([0-9]+)-([0-9]+)-g([0-9a-fA-F]+)" _ ${DARKNET_VERSION_STRING})
SET (DARKNET_VERSION_SHORT ${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3})
"""
CLI = """\
ADD_LIBRARY (darknet SHARED lib.c)
ADD_EXECUTABLE (darknetcli cli.c lib.c)
SET_TARGET_PROPERTIES (darknetcli PROPERTIES OUTPUT_NAME "darknet")
TARGET_LINK_LIBRARIES (darknetcli PRIVATE m)
ADD_EXECUTABLE (example example.c)
"""
MAIN = """\
#include <stdio.h>
const char *where(void);
int main(void) {
    char name[256] = "";
    if (scanf("%255s", name) == 1) fclose(fopen("predictions.jpg", "w"));
    puts("Darknet " VERSION " built " __DATE__ " of " __FILE__);
    puts(where());
#ifdef DARKNET_TRY_CUDA
    puts("with CUDA");
#endif
#ifdef ENABLE_SSE_AND_AVX
    puts("with AVX");
#endif
#ifdef DARKNET_TRY_OPENBLAS
    puts("with OpenBLAS");
#endif
    return 0;
}
"""


def toy(folder: Path, **others: str) -> Path:
    """A tree with hank-ai's layout that builds in a second; `others` are other texts by stem."""
    for name, text in {
        "CMakeLists.txt": others.get("top", TOP),
        "CM_version.cmake": VERSION,
        "src-cli/CMakeLists.txt": others.get("cli", CLI),
        "src-cli/cli.c": others.get("main", MAIN),
        "src-cli/lib.c": "const char *where(void) { return __FILE__; }\n",
        "src-cli/example.c": "#error examples are not asked for\n",
        "src-lib/darknet.h": "#pragma once\n",
        "src-python/darknet.py": "# binding\n",
        "cfg/yolov4.cfg": "[net]\n",
        "cfg/CMakeLists.txt": "# installs them\n",
        "LICENSE": "Apache\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def upstream_at(
    folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, flavour: Flavour
) -> Path:
    """Let git take the repository in `folder` for the flavour's own, by a user's settings."""
    home = scratch / "home"
    home.mkdir()
    lines = [f'[url "{folder.as_uri()}"]\n\tinsteadOf = {url}\n' for url in flavour.urls]
    (home / ".gitconfig").write_text("".join(lines))
    monkeypatch.setenv("HOME", str(home))
    return folder
