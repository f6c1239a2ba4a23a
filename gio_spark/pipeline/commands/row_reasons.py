"""Rules that decide about a row of the pool, and the reason of a decision in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column

RULES = {
    "selected": "the row is selected",
    "not_in_pool": "the version of the pool that was read has no such row",
    "purged": "the row was purged from the workspace",
    "quarantine": "the row cannot be used",
    "duplicate": "another row with the same or nearly the same content stays",
    "held_out": "the row overlaps with a held-out set",
    "unreached_cluster": "the target has no part in the cluster",
    "no_allocation": "the plan takes no row of the cluster",
    "below_threshold": "other rows of the cluster rank higher",
    "source_cap": "the cap of its source leaves the row out",
    "source_floor": "limits of other sources leave the row out",
    "unknown_source": "its source was not in the pool when the plan was made",
    "unexplained": "the row passes every rule and is not in the selection",
}
"""Rule that decided about a row -> what it says."""


def reason_in_words() -> Column:
    """Reason of each row, from the columns that `row_decisions` joins.

    It holds whole numbers and texts only, which every engine writes alike.
    """
    cluster = F.concat(F.lit("cluster "), _text("cluster"))
    source = F.concat(F.lit("source '"), F.coalesce("source", F.lit("")), F.lit("'"))
    of_cluster = F.concat(_text("cluster_take"), F.lit(" of "), _text("cluster_rows"))
    of_source = F.concat(
        _text("source_take"), F.lit(" of its "), _text("source_rows"), F.lit(" rows in "), cluster,
        F.lit(" are taken"),
    )  # fmt: skip
    bad = F.coalesce("unusable", "bad_reason", F.lit(""))
    matched = F.when(
        F.col("removed_detail").isNotNull(), F.concat(F.lit(" of "), F.col("removed_detail"))
    ).otherwise(F.lit(""))
    words = F.regexp_replace(F.coalesce("removed_reason", F.lit("")), "_", " ")
    ranked_below = F.concat(
        F.lit("below the threshold of "), cluster, F.lit(", of which "), of_cluster,
        F.lit(" rows are taken"),
        F.when(F.col("source_known"), F.concat(F.lit("; "), source, F.lit(": "), of_source))
        .otherwise(F.lit("")),
    )  # fmt: skip
    sentences = {
        "selected": F.coalesce("selection_reason", F.lit("")),
        "quarantine": F.concat(F.lit("in quarantine: "), bad),
        "duplicate": F.concat(words, matched),
        "held_out": F.concat(F.lit("overlap with held-out rows: "), words, matched),
        "unreached_cluster": F.concat(cluster, F.lit(" holds nothing of the target")),
        "no_allocation": F.concat(
            F.lit("the plan takes none of the "), _text("cluster_rows"), F.lit(" rows of "), cluster
        ),
        "below_threshold": ranked_below,
        "source_cap": F.concat(F.lit("cap of "), source, F.lit(": "), of_source),
        "source_floor": F.concat(
            F.lit("limits of other sources: of "), source, F.lit(" "), of_source
        ),
        "unknown_source": F.concat(source, F.lit(" was not in the pool when the plan was made")),
    }
    why = F.lit(None).cast("string")
    for name in RULES:
        sentence = sentences.get(name, F.lit(RULES[name]))
        why = F.when(F.col("rule") == F.lit(name), sentence).otherwise(why)
    return why


def _text(column: str) -> Column:
    return F.coalesce(F.col(column).cast("string"), F.lit("?"))
