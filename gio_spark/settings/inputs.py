"""Where pool and targets are read from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gio_spark.settings.base import StageSettings
from gio_spark.settings.columns import Columns

Format = Literal["auto", "delta", "parquet", "jsonl", "csv"]
Verify = Literal["listing", "content"]


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
