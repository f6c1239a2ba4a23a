"""Take secrets out of texts and settings before they are logged, tracked or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_USER_INFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@]*:[^/\s]*@")
_TOKEN_USER = re.compile(r"(?P<scheme>https?://)[^/\s@:]+@")
_ASSIGNED = re.compile(
    r"(?i)(?P<key>(?:^|[?&;,\s])(?:[\w.-]*[._-])?(?:password|passwd|pwd|secret|token|sig|signature"
    r"|api[_-]?key|access[_-]?key|account[_-]?key|shared[_-]?access[_-]?key|credentials?)=)"
    r"[^&;,\s]+"
)
_SECRET_KEY = re.compile(
    r"(?i)(?:^|[._-])(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key"
    r"|account[_-]?key|credentials?)(?:$|[._-])"
)


def redact(text: str) -> str:
    """Return the text with credentials in URIs and connection strings replaced by `***`.

    Hidden are the user part of `scheme://user:password@host`, bare tokens before the host of an
    http(s) address, and the values of query or option keys that name a secret (`sig=`, `token=`).
    """
    text = _USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _TOKEN_USER.sub(rf"\g<scheme>{HIDDEN}@", text)
    return _ASSIGNED.sub(rf"\g<key>{HIDDEN}", text)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted keys and texts without secrets.

    Args:
        settings: nested mapping, for instance `model.model_dump(mode="json")`.
        prefix: put before every key, with a dot.

    Returns:
        One entry per leaf, in the order of the settings. Lists are joined by commas; a value whose
        key names a secret is hidden whole.
    """
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat.update(flatten(value, name) if value else {name: ""})
        elif _SECRET_KEY.search(name) and value is not None and not isinstance(value, bool):
            flat[name] = HIDDEN
        elif isinstance(value, (list, tuple)) and not any(isinstance(v, Mapping) for v in value):
            flat[name] = redact(", ".join(str(v) for v in value))
        elif isinstance(value, (list, tuple)):
            for place, item in enumerate(value):
                flat.update(flatten({str(place): item}, name))
        else:
            flat[name] = redact("" if value is None else str(value))
    return flat


def redacted_settings(settings: Any, name: str = "") -> Any:
    """Nested settings of plain values in which each secret is replaced by `***`.

    Example:
        >>> redacted_settings({"tags": {"api_key": "x"}, "pool": "https://user:word@host/p"})
        {'tags': {'api_key': '***'}, 'pool': 'https://***@host/p'}
    """
    if isinstance(settings, Mapping):
        return {k: redacted_settings(v, f"{name}.{k}" if name else k) for k, v in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [redacted_settings(value, name) for value in settings]
    if not isinstance(settings, str):
        return settings
    return HIDDEN if _SECRET_KEY.search(name) else redact(settings)
