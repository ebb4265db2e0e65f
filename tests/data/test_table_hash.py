"""The hash of a table is of its values: not of chunks, of what lies under nulls, or of how wide numbers are."""

from typing import Any

import pyarrow as pa
import pytest

from ssl_video.data.table_hash import table_hash

ROWS: dict[str, list[Any]] = {
    "text": ["a", None, "", "süß", "b"],
    "whole": [1, None, -3, 4, 5],
    "real": [0.5, None, 1e300, 2.0, -1.0],
    "truth": [True, None, False, True, False],
    "list": [["a", "b"], None, [], ["c", None], ["d"]],
    "numbers": [[1, 2], None, [], [3], [4, 5, 6]],
}


def table(rows: dict[str, list[Any]] = ROWS) -> pa.Table:
    return pa.table(rows)


def test_chunks_and_slices_change_nothing() -> None:
    one = table_hash(table())
    for cut in range(6):
        parts = pa.concat_tables([table().slice(0, cut), table().slice(cut)])
        assert table_hash(parts) == one
    padded = pa.table({name: [values[0], *values, values[-1]] for name, values in ROWS.items()})
    assert table_hash(padded.slice(1, 5)) == one


def test_widths_and_what_lies_under_nulls_change_nothing() -> None:
    wide = table({"n": [1, None]})
    narrow = pa.table({"n": pa.array([1, None], pa.int32())})
    masked = pa.table(
        {"n": pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.array([1, 9]).buffers()[1]])}
    )
    assert table_hash(wide) == table_hash(narrow) == table_hash(masked)


@pytest.mark.parametrize("name", list(ROWS))
def test_every_value_counts(name: str) -> None:
    one = table_hash(table())
    for place in range(5):
        values = list(ROWS[name])
        values[place] = ROWS[name][(place + 1) % 5]
        assert table_hash(table({**ROWS, name: values})) != one, place


def test_names_order_and_the_description_count() -> None:
    one = table_hash(table())
    assert table_hash(table().rename_columns(["other", *list(ROWS)[1:]])) != one
    assert table_hash(table().select(list(ROWS)[::-1])) != one
    assert table_hash(table(), described="x") != one
    assert table_hash(table({"x": ["ab", "c"]})) != table_hash(table({"x": ["a", "bc"]}))
    assert table_hash(table({"x": [["a"], ["b", "c"]]})) != table_hash(table({"x": [["a", "b"], ["c"]]}))
    assert table_hash(table({"x": [None, "a"]})) != table_hash(table({"x": ["", "a"]}))


def test_the_form_is_fixed() -> None:
    """The same on every machine: a change of the form needs a new HASH_VERSION."""
    assert table_hash(table()).startswith("9c1c9045a9d9233b")


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="canonical form"):
        table_hash(pa.table({"x": pa.array([b"bytes"])}))
