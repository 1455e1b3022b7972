"""`Key`: what is equal, what is refused, how a difference is told."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcache.errors import InvalidKey
from artcache.key import FIELDS, Key, canonical_json, shown, valid_hash, valid_recipe_name

LETTERS = st.characters(
    exclude_categories=["Cs"], exclude_characters="".join(map(chr, [*range(32), 127]))
)
TEXT = st.text(LETTERS, max_size=20)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(lambda name: name != "recipe")
FIELD_SETS = st.dictionaries(NAMES, TEXT | st.lists(TEXT, unique=True, max_size=4), max_size=6).map(
    lambda fields: {**fields, "recipe": "thing"}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=15,
)


@given(FIELD_SETS, st.randoms())
def test_neither_the_order_of_fields_nor_of_lists_makes_another_key(fields, random) -> None:
    names = list(fields)
    random.shuffle(names)
    mixed = {
        name: random.sample(fields[name], len(fields[name]))
        if isinstance(fields[name], list)
        else fields[name]
        for name in names
    }
    assert Key(fields) == Key(mixed)
    assert Key(fields).canonical == Key(mixed).canonical


@given(FIELD_SETS, FIELD_SETS)
def test_keys_are_equal_exactly_when_hash_and_fields_are(one, other) -> None:
    left, right = Key(one), Key(other)
    assert (left == right) == (left.fields == right.fields) == (left.hash == right.hash)
    assert (left == right) == (not left.differences(right))


@given(FIELD_SETS)
def test_the_canonical_bytes_hold_every_field_and_make_the_same_key(fields) -> None:
    key = Key(fields)
    assert Key(json.loads(key.canonical)) == key
    assert json.loads(key.canonical).keys() == fields.keys()
    assert valid_hash(key.hash)


@given(JSON)
def test_canonical_json_reads_back_and_is_a_fixed_point(value) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


def test_canonical_json_escapes_the_least_that_json_allows() -> None:
    text = '\x00\x08\t\n\x0b\x0c\r\x1f "\\/\x7f\x80é\u2028😀'
    assert canonical_json([text]).decode() == (
        r'["\u0000\b\t\n\u000b\f\r\u001f \"\\/' + "\x7f\x80é\u2028😀" + '"]'
    )


def test_names_are_sorted_by_code_point_and_not_by_utf_16() -> None:
    assert canonical_json({"\U0001f600": 1, "\uffff": 2, "a": 3, "B": 4}).decode() == (
        '{"B":4,"a":3,"\uffff":2,"\U0001f600":1}'
    )


def test_canonical_json_has_no_place_for_a_number_that_is_none() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_a_list_is_sorted_and_frozen() -> None:
    archs = ["sm_80", "sm_75"]
    key = Key({"recipe": "thing", "arch": archs})
    archs.append("sm_90")
    assert key.get("arch") == ("sm_75", "sm_80")


def test_what_is_handed_out_cannot_change_the_key() -> None:
    key = Key({"recipe": "thing"})
    key.fields["recipe"] = "other"
    assert key.recipe == "thing"


def test_a_list_of_one_is_not_its_element() -> None:
    assert Key({"recipe": "thing", "arch": ["x"]}) != Key({"recipe": "thing", "arch": "x"})


def test_an_absent_field_is_not_an_empty_one() -> None:
    assert Key({"recipe": "thing"}) != Key({"recipe": "thing", "arch": ""})
    assert Key({"recipe": "thing", "arch": ""}) != Key({"recipe": "thing", "arch": []})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"commit": "1"},
        {"recipe": ""},
        {"recipe": "Thing"},
        {"recipe": "a/b"},
        {"recipe": "a..b"},
        {"recipe": ".hidden"},
        {"recipe": "end-"},
        {"recipe": "x" * 65},
        {"recipe": ["thing"]},
        {"recipe": "thing\n"},
        {"recipe": "thing", "Commit": "1"},
        {"recipe": "thing", "1st": "1"},
        {"recipe": "thing", "": "1"},
        {"recipe": "thing", "a" * 65: "1"},
        {"recipe": "thing", "commit": "a\nb"},
        {"recipe": "thing", "commit": "a\x7f"},
        {"recipe": "thing", "commit": "\ud800"},
        {"recipe": "thing", "arch": ["a", "a"]},
        {"recipe": "thing", "arch": ["a\0"]},
        {"recipe": "thing", "arch": [75]},
        {"recipe": "thing", "arch": [["a"]]},
        {"recipe": "thing", "cuda": 12.8},
        {"recipe": "thing", "cuda": None},
        {"recipe": "thing", "cuda": b"12.8"},
        {"recipe": "thing", "options": {"GPU": "1"}},
    ],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(fields) -> None:
    with pytest.raises(InvalidKey):
        Key(fields)


@pytest.mark.parametrize("name", ["a", "7z", "darknet", "a.b-c_d", "x" * 64])
def test_recipe_names_that_are_good(name: str) -> None:
    assert valid_recipe_name(name)
    assert Key({"recipe": name}).recipe == name


@given(st.text(max_size=70))
def test_no_recipe_name_can_leave_a_folder(name: str) -> None:
    if valid_recipe_name(name):
        assert set(name) <= set(string.ascii_lowercase + string.digits + "._-")
        assert "/" not in name and ".." not in name and name.strip(".") == name


@pytest.mark.parametrize(
    ("text", "good"), [("0" * 32, True), ("A" * 32, False), ("0" * 31, False), ("0" * 33, False)]
)
def test_a_hash_is_32_lower_case_digits(text: str, good: bool) -> None:
    assert valid_hash(text) is good


def test_differences_come_in_reading_order_with_both_values() -> None:
    ours = Key({"recipe": "thing", "zone": "a", "cuda": "12.8", "arch": ["sm_75"]})
    theirs = Key({"recipe": "thing", "zone": "b", "cuda": "12.4"})

    told = [str(difference) for difference in ours.differences(theirs)]

    assert told == ["cuda: 12.4, wanted 12.8", "arch: absent, wanted sm_75", "zone: b, wanted a"]


def test_equal_keys_are_one_in_a_set() -> None:
    one, two = (
        Key({"recipe": "thing", "arch": ["b", "a"]}),
        Key({"recipe": "thing", "arch": "a b".split()}),
    )
    assert len({one, two}) == 1
    assert one != "thing"


def test_the_fields_of_our_recipes_are_field_names() -> None:
    assert Key({**dict.fromkeys(FIELDS, "x"), "recipe": "thing"}).fields.keys() == set(FIELDS)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "absent"), ("", ""), ((), "none"), (("a", "b"), "a, b")]
)
def test_a_value_is_shown_as_people_read_it(value, text: str) -> None:
    assert shown(value) == text
