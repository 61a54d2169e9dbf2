"""Groups, keys and columns: what they find equals what plain loops over the rows find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import native
from sensor.columns import by_column
from sensor.grouping import group, sorted_rows
from sensor.keys import Places, distinct, mix

SMALL = st.integers(-3, 3)
WIDE = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(SMALL | WIDE, st.integers(0, 2**40), st.booleans()), max_size=30))
def test_groups_are_those_of_a_dictionary(rows: list[tuple[int, int, bool]]) -> None:
    """Groups are in the order of their keys, each with its first row, and sums and extremes are those of its rows."""
    expected: dict[int, list[int]] = {}
    for number, (key, _, _) in enumerate(rows):
        expected.setdefault(key, []).append(number)
    members = [expected[key] for key in sorted(expected)]
    values = np.array([value for _, value, _ in rows], np.int64)
    counts = np.array([here for _, _, here in rows], np.bool_)
    groups = group(np.array([key for key, _, _ in rows], np.int64))
    assert len(groups) == len(members)
    assert groups.first.tolist() == [one[0] for one in members]
    assert all(groups.of_row[row] == number for number, one in enumerate(members) for row in one)
    assert groups.sum(values).tolist() == [sum(rows[row][1] for row in one) for one in members]
    least, most = groups.min(values, counts).tolist(), groups.max(values, counts).tolist()
    for number, one in enumerate(members):
        counted = [rows[row][1] for row in one if rows[row][2]]
        assert least[number] == min(counted, default=np.iinfo(np.int64).max)
        assert most[number] == max(counted, default=0)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30))
def test_distinct_keys_are_those_of_a_set(keys: list[int]) -> None:
    """Each key once, in order."""
    assert distinct(np.array(keys, np.uint64)).tolist() == sorted(set(keys))


def test_places_are_found_until_they_are_removed() -> None:
    """Keys have the row that they were given, and none before that or afterwards."""
    places, keys = Places(), mix(np.arange(1000))
    assert places.of(keys).tolist() == [-1] * 1000
    places.add(keys[::2], np.arange(500))
    places.add(keys[1::2], np.arange(500, 1000))
    assert places.of(keys[:4]).tolist() == [0, 500, 1, 501]
    places.remove(np.array([500, 1]))
    assert places.of(keys[:4]).tolist() == [0, -1, -1, 501]
    assert len(places) == 998


def test_records_by_column_are_the_same_and_read_only() -> None:
    """A field, a row and a selection are those of the records, and nobody can write into what others will read."""
    records = np.array([(1, 2.5), (3, 4.5), (5, 6.5)], [("a", "i8"), ("b", "f8")])
    columns = by_column(records)
    assert columns["a"].tolist() == [1, 3, 5]
    assert columns["a"] is columns["a"]
    assert columns[1]["b"] == 4.5
    assert columns[columns["a"] > 1]["b"].tolist() == [4.5, 6.5]
    with pytest.raises(ValueError, match="read-only"):
        columns["a"][0] = 7
    with pytest.raises(ValueError, match="no field of name c"):
        columns["c"]


@given(st.lists(WIDE, max_size=30))
def test_rows_in_the_order_of_their_keys_are_sorted_stably(keys: list[int]) -> None:
    """Equal keys stay in the order of their rows, negative ones come first."""
    order, ordered = sorted_rows(np.array(keys, np.int64))
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)
    assert ordered.tolist() == sorted(keys)


@given(st.integers(0, 200))
def test_fields_are_copied_whatever_their_width(rows: int) -> None:
    """Numbers of every width, arrays within a record, records that are apart in memory."""
    records = np.frombuffer(np.random.default_rng(rows).bytes(2 * rows * native.RECORD.itemsize), native.RECORD)[::2]
    names = native.RECORD.names or ()
    copied = native.copy_fields(records, names)
    assert all(copied[name].dtype == records[name].dtype for name in names)
    assert all(np.array_equal(copied[name], records[name]) for name in names)
    assert all(copied[name].flags.c_contiguous for name in names)
