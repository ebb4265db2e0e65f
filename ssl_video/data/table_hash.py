"""A hash over the values of a table: the same whatever the machine, the file format and how rows are chunked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

compute: Any = pc  # the stubs refuse plain values


def table_hash(table: pa.Table, *, described: str = "") -> str:
    """sha256 over the names, kinds and values of all columns, in their order.

    Args:
        table: columns of strings, numbers, truth values, or lists of these.
        described: what else belongs to the table.
    """
    digest = hashlib.sha256(f"{described}\n{table.num_rows}\n".encode())
    for name in table.column_names:
        digest.update(f"{name}\n{_kind(table.schema.field(name).type)}\n".encode())
        for part in _canonical(table.column(name).chunks):
            digest.update(part)
    return digest.hexdigest()


def _kind(dtype: pa.DataType) -> str:
    if pa.types.is_list(dtype):
        return f"list of {_kind(dtype.value_type)}"
    for is_kind, name in (
        (pa.types.is_string, "text"),
        (pa.types.is_boolean, "truth"),
        (pa.types.is_integer, "whole"),
        (pa.types.is_floating, "real"),
    ):
        if is_kind(dtype):
            return name
    raise ValueError(f"a column of {dtype} has no canonical form; text, numbers, truth values and lists have.")


def _canonical(chunks: list[Any]) -> Iterator[Any]:
    """Which values are there; then for lists and text all lengths and all contents; what lies under a null is left out.

    Each in the order of the rows, however they are divided into chunks.
    """
    if not chunks:
        return
    for chunk in chunks:
        yield chunk.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    dtype = chunks[0].type
    if pa.types.is_list(dtype):
        for chunk in chunks:
            yield compute.fill_null(compute.list_value_length(chunk), 0).to_numpy(zero_copy_only=False).astype("<i8")
        yield from _canonical([chunk.flatten() for chunk in chunks])
    elif pa.types.is_string(dtype):
        for chunk in chunks:
            yield np.diff(_text(chunk)[0]).astype("<i8")
        for chunk in chunks:
            offsets, content = _text(chunk)
            yield content[offsets[0] : offsets[-1]]
    else:
        number = "<f8" if pa.types.is_floating(dtype) else "<i8"
        for chunk in chunks:
            zero = pa.scalar(0, type=pa.int8()).cast(dtype)
            yield compute.fill_null(chunk, zero).to_numpy(zero_copy_only=False).astype(number)


def _text(chunk: pa.Array[Any]) -> tuple[NDArray[np.int64], memoryview]:
    """Where each text begins, and the last ends, in the bytes of all."""
    texts = compute.fill_null(chunk, "").cast(pa.large_string())
    _, offsets, content = texts.buffers()
    if not len(texts) or content is None:
        return np.zeros(len(texts) + 1, dtype=np.int64), memoryview(b"")
    places = np.frombuffer(offsets, dtype=np.int64)
    return places[texts.offset : texts.offset + len(texts) + 1], memoryview(content)
