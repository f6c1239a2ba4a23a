"""Stage metrics: GIME of pool, selection and a random draw of the same size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded, hash_share
from gio_spark.pipeline.clusters import Codebook
from gio_spark.pipeline.context import Context, fingerprint
from gio_spark.pipeline.vectors import Side

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress


def measure(
    ctx: Context, sides: dict[str, Side], book: Codebook, selected: DataFrame, rows: int
) -> pd.DataFrame:
    """Compute the metrics of the three groups from the skinny assignments; no vector is read."""
    settings = ctx.settings.gime
    ws = ctx.workspace
    key = fingerprint("metrics", settings.model_dump(mode="json"), ctx.run, book.assignments)

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        pool = ws.read("assignments", book.assignments["pool"]).drop("fingerprint")
        kept = pool.join(selected.select(F.col("gio_id").alias("id")), "id", "left_semi")
        share = rows / max(1, sides["pool"].usable)
        drawn = pool.where(hash_share("id", share, f"metrics-random-{ctx.settings.seed}"))
        names = [c for c in pool.columns if c != "id"]
        groups = [
            df.select("id", *names, F.lit(name).alias("group"))
            for name, df in (("pool", pool), ("selected", kept), ("random", drawn))
        ]
        every = groups[0].unionByName(groups[1]).unionByName(groups[2])
        targets = [
            ws.read("assignments", k).drop("fingerprint")
            for n, k in book.assignments.items()
            if n.startswith("target")
        ]
        target = targets[0]
        for more in targets[1:]:
            target = target.unionByName(more)
        found = gime.metrics(
            every, profile=settings.profile, by="group", target=target,
            clusters=len(book.centroids), codebook_version=book.key, settings=settings,
        )
        # The metrics are a few hundred rows made by a grouped map: brought in once, then written,
        # so that the map does not run a second time for the check after the write.
        table = bounded(found, 100_000, "metrics")
        written = ws.write_arrow(
            "metrics", table, fingerprint=key, run=ctx.run, stage="metrics"
        )
        return written, {}

    ctx.stage("metrics", key, "metrics", make)
    table = bounded(ws.read("metrics", key), 100_000, "metrics").to_pandas()
    table["group"] = table["group"].str.removeprefix("group=")
    return table.drop(columns="fingerprint")
