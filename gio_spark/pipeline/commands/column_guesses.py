"""Guesses which column of an input plays which role, each with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import types as T

from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import InputError
from gio_spark.pipeline.commands.sampled_input import (
    MOST_CATEGORIES,
    SAMPLED_ROWS,
    TEXT_NAMES,
    SampledColumn,
    SampledInput,
)
from gio_spark.tables import quoted_column

# Above this, ids are not counted in all rows: the sample has to do.
_COUNTED_ROWS = 1_000_000
_MOST_LABELS = 200
_WORDY_CHARACTERS = 30

_ID = re.compile(r"(^|_)(id|ids|uuid|guid|key|pk|hash|sha1|sha256|md5|url|uri)$")
_SOURCE = ("source", "domain", "dataset", "subset", "corpus", "collection", "origin", "site",
           "publisher", "split")  # fmt: skip
_TOKENS = re.compile(r"^(n_|num_)?tok(en)?s?(_?(count|n|num|length|len))?$")
_QUALITY = re.compile(r"(^|_)(quality|score)(_|$)")
_LABEL = ("label", "labels", "class", "category", "y", "topic", "intent")
_INGEST = re.compile(r"ingest|crawl|collect|fetch|load|insert|scrape|download")
_TEMPLATES = (
    ("instruction", "input", "output"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("source", "target"),
)
_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_CONTENT = ("text", "output", "vector", "image", "numeric", "categorical")


@dataclass(frozen=True)
class Guess:
    """A setting with the reason for it; a value of None is a role that stays open."""

    name: str
    value: Any
    reason: str


def guess_columns(pool: SampledInput, target: SampledInput) -> list[Guess]:
    """Roles of the pool's columns; content that the target has as well goes first."""
    identity = _identity(pool)
    used = [identity.value] if identity.value else []
    roles = [
        _first_role("source", pool, used, _is_source, "a text column with few values",
                    _by_name(_SOURCE)),
        _first_role("tokens", pool, used, _is_tokens, "a whole number such as n_tokens"),
        _first_role("quality", pool, used, _is_quality, "a number from 0 to 1"),
        _first_role("label", pool, used, _is_label, "a class of the row", _by_name(_LABEL)),
        _first_role("event_time", pool, used, _is_event_time, "a timestamp or a date"),
        _first_role("ingest_time", pool, used, _is_ingest_time, "when a row was collected"),
    ]  # fmt: skip
    # A role of the pool that the target's column of that name could not play stays open.
    roles = [_checked(role, target) for role in roles]
    return [identity, *_content(pool, target, used), *roles]


def _identity(pool: SampledInput) -> Guess:
    """Guess of the id: a named column without nulls whose values are all different."""
    open_role = "none: then a hash of the content is the id, and equal rows are one row"
    unique = [
        column.name
        for column in pool.columns
        if isinstance(column.type, (T.StringType, *_WHOLE))
        and _ID.search(column.name.lower())
        and column.distinct == len(column.values)
        and _is_unique(pool, column.name)
    ]
    unique.sort(key=lambda name: (name.lower() != "id", "url" in name.lower()))
    if not unique:
        return Guess(
            "id", None, f"no column named id, uuid, key or the like is unique; {open_role}"
        )
    where = "all rows" if pool.count <= _COUNTED_ROWS else f"{SAMPLED_ROWS:,} sampled rows"
    return Guess(
        "id", unique[0], f"its values differ in {where}; {_others(unique[1:])}or {open_role}"
    )


def _is_unique(pool: SampledInput, name: str) -> bool:
    if pool.count > _COUNTED_ROWS:
        return True
    ids = pool.rows.select(quoted_column(name)).dropna().distinct()
    with engine_errors(location=pool.location):
        return ids.count() == pool.count


def _content(pool: SampledInput, target: SampledInput, used: Sequence[str]) -> list[Guess]:
    """Guess of the content: vectors, images, chats, texts, else features.

    Raises:
        InputError: No column can be the content.
    """
    own = [c for c in pool.columns if c.name not in used]
    shared = [c for c in own if target.column(c.name) is not None]
    for columns in (shared, own):
        content = _single_content(columns, pool, pairs=_template(target.columns) is not None)
        if content:
            return content
    for columns in (shared, own):
        features = _features(columns)
        if features:
            return features
    raise InputError(
        f"pool: no column of {pool.location} can be the content: a text, chat messages, a vector, "
        f"an image or features. It has: {pool.types}."
    )


def _single_content(
    columns: Sequence[SampledColumn], pool: SampledInput, *, pairs: bool
) -> list[Guess]:
    """Guess of vectors, images, a text or a pair, where the other input has pairs; else nothing."""
    names = {kind: [c.name for c in columns if c.kind == kind] for kind in ("vector", "image")}
    chats = [c.name for c in columns if c.kind in ("chat", "chat json")]
    texts = _texts(columns)
    candidates = [*names["vector"], *names["image"], *chats, *texts]
    rest = _others(candidates[1:])
    if names["vector"]:
        reason = f"lists of numbers of one length; {rest}or another embedder"
        return [Guess("vector", candidates[0], reason)]
    if names["image"]:
        return [Guess("image", candidates[0], f"images, or lists of pixels; {rest}or no other")]
    if chats:
        column = pool.column(chats[0])
        path = chats[0] if column and column.kind == "chat" else f"{chats[0]}[*].content"
        return [Guess(
            "text", path,
            f"chat messages; {rest}or chat_roles: [assistant] for the answers alone, or a path "
            "such as messages[0].content",
        )]  # fmt: skip
    if not texts:
        return []
    template = _template(columns)
    if template is not None:
        whole = _joined(template)
        if not pairs:
            return [Guess(
                "text", whole, f"a prompt and its answer; {_others(texts)}or other columns"
            )]  # fmt: skip
        *prompt, output = template
        return [
            Guess(
                "text", prompt[0] if len(prompt) == 1 else _joined(prompt),
                f"a prompt, or the first half of a pair; {_others(texts)}or other columns",
            ),
            Guess(
                "output", output,
                "the second half: rows are clustered by the first and ranked by their match as "
                f"well; or none, with both in one text: {json.dumps(whole)}",
            ),
        ]  # fmt: skip
    return [Guess(
        "text", texts[0],
        f"the column with the name or the length of a text; {rest}or a template such as "
        '"{title} {body}"',
    )]  # fmt: skip


def _joined(names: Sequence[str]) -> str:
    return "\n".join("{" + name + "}" for name in names)


def _template(columns: Sequence[SampledColumn]) -> tuple[str, ...] | None:
    """Columns of a prompt and its answer, which are texts."""
    kinds = {column.name: column.kind for column in columns}
    for template in _TEMPLATES:
        if set(template) <= set(kinds) and kinds[template[0]] == kinds[template[-1]] == "text":
            return template
    return None


def _texts(columns: Sequence[SampledColumn]) -> list[str]:
    """Columns that may be the text, the likeliest first."""
    texts = [
        c
        for c in columns
        if c.kind == "text" and (c.name.lower() in TEXT_NAMES or c.characters >= _WORDY_CHARACTERS)
    ]
    rank = {name: place for place, name in enumerate(TEXT_NAMES)}
    texts.sort(key=lambda c: (rank.get(c.name.lower(), len(TEXT_NAMES)), -c.characters, c.name))
    return [c.name for c in texts]


def _features(columns: Sequence[SampledColumn]) -> list[Guess]:
    numeric = [
        c.name
        for c in columns
        if c.kind == "number" and not _TOKENS.search(c.name.lower())
        and c.name.lower() not in _LABEL
    ]  # fmt: skip
    categorical = [
        c.name
        for c in columns
        if c.kind == "category" and c.name.lower() not in (*_LABEL, *_SOURCE)
    ]
    reason = "no text, vector or image is there, so numbers and categories are the content"
    return [
        Guess(role, names, f"{reason}; leave out what should not count")
        for role, names in (("numeric", numeric), ("categorical", categorical))
        if names
    ]


def _first_role(
    role: str,
    pool: SampledInput,
    used: list[str],
    fits: Callable[[SampledColumn], bool],
    needed: str,
    order: Callable[[SampledColumn], Any] = lambda _: 0,
) -> Guess:
    """Guess of an optional role: the first column that fits; it joins `used`."""
    fitting = sorted((c for c in pool.columns if c.name not in used and fits(c)), key=order)
    names = [c.name for c in fitting]
    if not names:
        return Guess(role, None, f"no column seems to be {needed}")
    used.append(names[0])
    return Guess(role, names[0], f"by name and values {needed}; {_others(names[1:])}or none")


def _by_name(names: Sequence[str]) -> Callable[[SampledColumn], int]:
    return lambda column: names.index(column.name.lower())


def _is_source(column: SampledColumn) -> bool:
    few = column.distinct <= MOST_CATEGORIES
    return column.name.lower() in _SOURCE and isinstance(column.type, T.StringType) and few


def _is_tokens(column: SampledColumn) -> bool:
    if column.kind != "number" or not _TOKENS.search(column.name.lower()):
        return False
    return all(float(v).is_integer() and float(v) >= 0 for v in _numbers(column))


def _is_quality(column: SampledColumn) -> bool:
    if column.kind != "number" or not _QUALITY.search(column.name.lower()):
        return False
    return not isinstance(column.type, T.BooleanType) and all(
        0 <= float(v) <= 1 for v in _numbers(column)
    )


def _numbers(column: SampledColumn) -> list[Any]:
    return [v for v in column.present if not (isinstance(v, str) and not v.strip())]


def _is_label(column: SampledColumn) -> bool:
    simple = column.kind in ("number", "category", "text")
    return simple and column.name.lower() in _LABEL and column.distinct <= _MOST_LABELS


def _is_event_time(column: SampledColumn) -> bool:
    return column.kind == "time" and not _INGEST.search(column.name.lower())


def _is_ingest_time(column: SampledColumn) -> bool:
    return column.kind == "time" and bool(_INGEST.search(column.name.lower()))


_FITS: dict[str, Callable[[SampledColumn], bool]] = {
    "source": _is_source,
    "tokens": _is_tokens,
    "quality": _is_quality,
    "label": lambda column: column.kind in ("number", "category", "text"),
    "event_time": lambda column: column.kind == "time",
    "ingest_time": lambda column: column.kind == "time",
}


def _checked(role: Guess, target: SampledInput) -> Guess:
    """The guess, or an open role where the target's column of that name is of another kind."""
    column = None if role.value is None else target.column(role.value)
    if column is None or role.name == "source" or _FITS[role.name](column):
        return role
    return Guess(role.name, None, f"{role.value!r} of the target is of another kind")


def guess_target_columns(
    guesses: Sequence[Guess], pool: SampledInput, target: SampledInput
) -> list[Guess]:
    """Roles of the target's columns, where the common ones do not fit it; else none.

    Raises:
        InputError: No column of the target can be the content.
    """
    content = [g for g in guesses if g.name in _CONTENT]
    identity = guesses[0]
    names = {c.name for c in target.columns}
    same_content = all(
        set(g.value) <= names if isinstance(g.value, list) else _has(target, pool, g.value)
        for g in content
    )
    own_identity = _identity(target)
    column = None if identity.value is None else target.column(identity.value)
    same_id = identity.value is None or (
        column is not None
        and column.distinct == len(column.values)
        and isinstance(column.type, (T.StringType, *_WHOLE))
        and _is_unique(target, column.name)
    )
    if same_content and same_id:
        return []
    own_content = content if same_content else _content(target, pool, [])
    if {g.name for g in own_content} != {g.name for g in content}:
        raise InputError(
            f"target: {target.location} has no column like the pool's {content[0].name} "
            f"{content[0].value!r}. It has: {target.types}."
        )
    optional = [g for g in guesses if g.name in _FITS and g.value in names]
    return [own_identity, *own_content, *optional]


def _has(target: SampledInput, pool: SampledInput, value: str) -> bool:
    """Whether the target has the column, or all columns of the expression, as the pool does."""
    plain = pool.column(value)
    if plain is None:
        parts = re.findall(r"\{([^{}]*)\}", value) or [value.removesuffix("[*].content")]
        return all(target.column(part) is not None for part in parts)
    column = target.column(value)
    return column is not None and (column.kind == plain.kind or plain.kind == "text")


def _others(names: Sequence[str]) -> str:
    return f"also possible: {', '.join(names[:3])}, " if names else ""
