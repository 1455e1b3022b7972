"""`Needs` and its JSON form: what goes out comes back; nothing else is taken."""

from __future__ import annotations

import json

import pytest

from artcache.errors import Corrupt
from artcache.needs import Needs

FULL = Needs(
    sonames=("libc.so.6", "libcudart.so.12"),
    glibc="2.34",
    glibcxx="3.4.30",
    cxxabi="1.3.13",
    sass=("sm_75", "sm_90a"),
    ptx=("compute_90",),
    driver="525.60.13",
    machine="x86_64",
)


@pytest.mark.parametrize("needs", [FULL, Needs()])
def test_what_is_written_reads_back_the_same(needs):
    assert Needs.from_json(json.loads(json.dumps(needs.to_json()))) == needs


def test_a_field_that_an_older_version_did_not_write_is_empty():
    assert Needs.from_json({"glibc": "2.17"}) == Needs(glibc="2.17")


@pytest.mark.parametrize(
    "bad",
    [
        {"surprise": "1"},
        {"glibc": 2.34},
        {"glibc": None},
        {"glibc": "GLIBC_2.34"},
        {"glibc": "2.34\n"},
        {"glibc": ["2.34"]},
        {"sonames": "libc.so.6"},
        {"sonames": ["libc.so.6", 6]},
        {"sonames": [""]},
        {"sonames": ["a\x00b"]},
        {"sonames": ["b", "a"]},
        {"sonames": ["a", "a"]},
        {"sass": ["compute_90"]},
        {"ptx": ["sm_90"]},
        {"sass": ["sm_90x"]},
        {"machine": "x86-64"},
        {"driver": "new"},
    ],
    ids=repr,
)
def test_anything_that_no_scan_writes_is_corrupt(bad):
    with pytest.raises(Corrupt, match="needs"):
        Needs.from_json(bad)


@pytest.mark.parametrize("bad", [None, [], "x", 3])
def test_anything_but_an_object_is_corrupt(bad):
    with pytest.raises(Corrupt):
        Needs.from_json(bad)
