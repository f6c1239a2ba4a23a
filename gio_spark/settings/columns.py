"""Roles of the columns of an input."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gio_spark.settings.base import StageSettings

CHAT_ROLES = ("user", "assistant")


class Columns(StageSettings):
    """Roles of columns, each the name of a column of the input.

    Content is one of text (with output: pairs), vector, image or features (numeric, categorical).
    Everything else is
    optional and is carried along for budgets, caps, metrics and reports.
    """

    id: str | None = Field(
        None, description="Unique key of a row (string or integer); none: a hash of the content."
    )
    text: str | None = Field(
        None,
        description=(
            "Text content: a column of texts or of chat messages, a path into a column "
            "(messages[0].content) or a template over several ('{title} {body}'); see "
            "docs/content.md."
        ),
    )
    output: str | None = Field(
        None,
        description=(
            "Second half of a pair whose first half is columns.text (translation, answer), written "
            "as columns.text is: rows are clustered by the first half and ranked by both."
        ),
    )
    chat_roles: tuple[str, ...] = Field(
        CHAT_ROLES,
        min_length=1,
        description=(
            "Roles of the chat messages that are part of the text (ShareGPT's human and gpt count "
            "as user and assistant); tool_calls stands for the calls inside messages."
        ),
    )
    vector: str | None = Field(
        None, description="Ready-made vectors: array of floats, or float32 bytes (little endian)."
    )
    image: str | None = Field(
        None, description="Images: encoded bytes (PNG, JPEG) or an array of pixel values."
    )
    numeric: tuple[str, ...] = Field((), description="Numeric features.")
    categorical: tuple[str, ...] = Field((), description="Categorical features.")
    source: str | None = Field(None, description="Source of a row (for shares and caps).")
    group: str | None = Field(
        None,
        description=(
            "Rows that belong together (document, conversation, person): no split of the target "
            "has rows of a group on both sides."
        ),
    )
    event_time: str | None = Field(None, description="Time of the event that the row describes.")
    ingest_time: str | None = Field(None, description="Time when the row was collected.")
    quality: str | None = Field(None, description="Quality of a row, 0 (bad) to 1 (good).")
    tokens: str | None = Field(None, description="Length of a row in tokens.")
    label: str | None = Field(None, description="Label of a row; used by evaluation only.")
    drop: tuple[str, ...] = Field(
        (), description="Columns to leave out, such as those of a type that no table can store."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_features_mapping(cls, data: object) -> object:
        """Accept `features: {numeric: [...], categorical: [...]}` beside the flat names."""
        if isinstance(data, dict) and "features" in data:
            data = dict(data)
            features = data.pop("features") or {}
            for kind in ("numeric", "categorical"):
                if kind in features:
                    data[kind] = tuple(features[kind])
        return data

    @model_validator(mode="after")
    def _check_output(self) -> Columns:
        if self.output is not None and self.text in (None, self.output):
            raise ValueError(
                f"columns.output is {self.output!r} and columns.text {self.text!r}: a pair needs "
                "its first half in columns.text and another second half in columns.output"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """Leave later settings out where unset: settings from before them keep their identity."""
        values = serialize(self)
        if self.chat_roles == CHAT_ROLES:
            values.pop("chat_roles", None)
        for role in ("output", "group"):
            if getattr(self, role) is None:
                values.pop(role, None)
        return values

    def content(self) -> tuple[str, ...]:
        """Names of the content columns, in a fixed order."""
        roles = (self.text, self.output, self.vector, self.image)
        single = [c for c in roles if c is not None]
        return (*single, *self.numeric, *self.categorical)

    def named(self) -> dict[str, str]:
        """Role -> column, for the single-column roles that are set."""
        roles = self.model_dump(exclude={"numeric", "categorical", "drop", "chat_roles"})
        return {role: name for role, name in roles.items() if name is not None}
