"""Something that happens at the moment when a stage of a run begins."""

from __future__ import annotations

from collections.abc import Callable

from gio_spark.engine.progress import Progress


class ActingProgress(Progress):
    """Silent progress that calls a function when a stage begins."""

    def __init__(self, stage: str, action: Callable[[], object]) -> None:
        super().__init__("silent")
        self._stage, self._action = stage, action
        self.acted = False

    def stage(self, name, *words, **more):
        """Show a stage, after what happens before it."""
        if name == self._stage and not self.acted:
            self.acted = True
            self._action()
        return super().stage(name, *words, **more)
