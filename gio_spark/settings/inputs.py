"""Settings of the inputs: pool, targets and held-out sets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gio_spark.settings.base import StageSettings
from gio_spark.settings.columns import Columns

Format = Literal["auto", "delta", "parquet", "jsonl", "csv"]
Verify = Literal["listing", "content"]


class CsvSettings(StageSettings):
    """Dialect of CSV files."""

    separator: str | None = Field(
        None,
        description="Character between fields, or tab; none: a tab in .tsv files, else a comma.",
    )
    quote: str = Field('"', max_length=1, description="Character around fields; '' for none.")
    escape: Literal["auto", "double", "backslash"] = Field(
        "auto",
        description=(
            "Form of a quote inside a quoted field: double (twice), backslash (after one, as Spark "
            "writes it), auto: determined from the files."
        ),
    )
    encoding: str = Field("utf-8", description="Encoding of the files, by its Python name.")

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and value != "tab" and len(value.encode()) != 1:
            raise ValueError("must be one ASCII character, or tab")
        return value


class InputSettings(StageSettings):
    """One input table: pool or target."""

    location: str = Field(
        description="Path of a Delta table, of Parquet, JSONL or CSV files, or the name of a table."
    )
    format: Format = Field(
        "auto", description="Format: delta, parquet, jsonl, csv; auto: determined from the files."
    )
    version: int | None = Field(
        None, ge=0, description="Version of a Delta table; none: the newest one, pinned at start."
    )
    verify: Verify = Field(
        "listing",
        description=(
            "Method of pinning and checking files: listing (length, times, or the store's "
            "checksum) or content (a hash of all bytes; a new time alone is no change). Delta "
            "tables are pinned by their version in either case."
        ),
    )
    csv: CsvSettings = Field(
        default_factory=lambda: CsvSettings(), description="Dialect of CSV files."
    )
    columns: Columns | None = Field(
        None,
        description="Roles of this input's columns, where they differ from those of all inputs.",
    )
    share: float = Field(
        1.0, gt=0, description="Weight of this target beside others (shares are normalized)."
    )

    @field_validator("location")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; give a path or a table's name")
        return value
