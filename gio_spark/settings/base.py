"""Base of every settings model: frozen, strict, with a digest of its content."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class StageSettings(BaseModel):
    """Base of all settings models: immutable, unknown keys refused, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def digest(self) -> str:
        """16 hex characters that change when, and only when, a setting changes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
