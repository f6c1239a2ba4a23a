"""Where pool and targets are read from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gio_spark.settings.base import StageSettings
from gio_spark.settings.columns import Columns

Format = Literal["auto", "delta", "parquet", "jsonl", "csv"]
Verify = Literal["listing", "content"]


class CsvSettings(StageSettings):
    """How CSV files are written."""

    separator: str | None = Field(
        None,
        description="Character between fields, or tab; none: a tab in .tsv files, else a comma.",
    )
    quote: str = Field('"', max_length=1, description="Character around fields; '' for none.")
    escape: Literal["auto", "double", "backslash"] = Field(
        "auto",
        description=(
            "How a quote inside a quoted field is written: double (twice), backslash (after one, "
            "as Spark writes it), auto: told from the files."
        ),
    )
    encoding: str = Field("utf-8", description="Encoding of the files, as Python calls it.")

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and value != "tab" and len(value.encode()) != 1:
            raise ValueError("must be one ASCII character, or tab")
        return value


class InputSettings(StageSettings):
    """One input table: pool or target."""

    location: str = Field(
        description="Path of a Delta table, of Parquet, JSONL or CSV files, or a table's name."
    )
    format: Format = Field(
        "auto", description="delta, parquet, jsonl, csv; auto: told from the files found."
    )
    version: int | None = Field(
        None, ge=0, description="Version of a Delta table; none: the newest one, pinned at start."
    )
    verify: Verify = Field(
        "listing",
        description=(
            "How files are pinned and checked again: listing (length, times, or the store's "
            "checksum) or content (a hash of all bytes; a new time alone is no change). Delta "
            "tables have versions, and content changes nothing for them."
        ),
    )
    csv: CsvSettings = Field(
        default_factory=lambda: CsvSettings(), description="How CSV files are written."
    )
    columns: Columns | None = Field(
        None, description="Roles of this input's columns, where they differ from the common ones."
    )
    share: float = Field(
        1.0, gt=0, description="Weight of this target beside others (shares are normalised)."
    )

    @field_validator("location")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; give a path or a table's name")
        return value
