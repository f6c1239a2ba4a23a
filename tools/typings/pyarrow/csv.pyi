"""Reader of CSV files."""

from typing import Any

from pyarrow import Table

class ReadOptions:
    def __init__(self, **options: Any) -> None: ...

class ParseOptions:
    def __init__(self, **options: Any) -> None: ...

class ConvertOptions:
    def __init__(self, **options: Any) -> None: ...

class InvalidRow:
    expected_columns: int
    actual_columns: int
    number: int | None
    text: str

def read_csv(
    input_file: Any,
    read_options: ReadOptions | None = None,
    parse_options: ParseOptions | None = None,
    convert_options: ConvertOptions | None = None,
) -> Table: ...
