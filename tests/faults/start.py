"""`gio-spark` with another clock, or with a commit for each record: `python -m tests.faults.start`.

    python -m tests.faults.start [--clock SECONDS] [--record-at-once] run CONFIG ...
    python -m tests.faults.start --hold-claim WORKSPACE KEY

Nothing of the product is replaced: the clock that it reads goes wrong, and records of short stages,
which it writes together, are due at once, so that there is a boundary after each of them.
"""

from __future__ import annotations

import datetime as dates
import sys
import time


def shift_clock(seconds: float) -> None:
    """Have the tables of this process tell another time: of tokens, records, claims, publishes."""
    import gio_spark.tables  # noqa: F401 - the modules whose clock goes wrong

    real = time.time

    class Shifted(dates.datetime):
        """The date and time by the wrong clock."""

        @classmethod
        def now(cls, tz=None):
            """Now, by the wrong clock."""
            return dates.datetime.now(tz) + dates.timedelta(seconds=seconds)

    time.time = lambda: real() + seconds
    for name, module in list(sys.modules.items()):
        if name.startswith("gio_spark.") and getattr(module, "datetime", None) is dates.datetime:
            module.datetime = Shifted


def hold_claim(workspace: str, key: str) -> None:
    """Claim a stage, say so, and compute for ever."""
    from gio_spark.engine import session
    from gio_spark.settings.run import ConcurrencySettings
    from gio_spark.tables import StageClaims, Workspace

    claims = StageClaims(Workspace(session("embedded"), workspace), ConcurrencySettings(), print)
    with claims.hold(key, run="run-of-another", stage="embed pool", finished=lambda: None):
        print("holding", flush=True)
        time.sleep(600)


def main() -> None:
    """Read the words of this module, and hand on the rest."""
    words = sys.argv[1:]
    if words[0] == "--hold-claim":
        hold_claim(*words[1:])
        return
    if words[0] == "--clock":
        shift_clock(float(words[1]))
        words = words[2:]
    at_once = words[0] == "--record-at-once"
    if at_once:
        words = words[1:]
        from gio_spark.tables import record_log

        record_log.UNRECORDED_SECONDS = 0.0
    sys.argv = ["gio-spark", *words]
    from gio_spark.cli import main as gio_spark

    gio_spark()


if __name__ == "__main__":
    main()
