"""Spark sessions, their capabilities, and data exchange between Spark and numpy."""

from gio_spark.engine.arrow import (
    decode_vectors,
    encode_vectors,
    group_arrow,
    map_arrow,
    output_schema,
)
from gio_spark.engine.background import (
    run_concurrently,
    run_in_background,
    run_lazily,
    runs_queries_concurrently,
)
from gio_spark.engine.broadcast import BroadcastArrays, broadcast_arrays, evict_oldest
from gio_spark.engine.capabilities import Capabilities, EngineInfo, capabilities, describe, slots
from gio_spark.engine.parallelism import ensure_parallelism
from gio_spark.engine.sampling import (
    HASH_RANGE,
    bounded,
    hash53,
    hash_sample,
    hash_samples,
    hash_share,
    row_hash,
)
from gio_spark.engine.session import session

__all__ = [
    "HASH_RANGE",
    "BroadcastArrays",
    "Capabilities",
    "EngineInfo",
    "bounded",
    "broadcast_arrays",
    "capabilities",
    "decode_vectors",
    "describe",
    "encode_vectors",
    "ensure_parallelism",
    "evict_oldest",
    "group_arrow",
    "hash53",
    "hash_sample",
    "hash_samples",
    "hash_share",
    "map_arrow",
    "output_schema",
    "row_hash",
    "run_concurrently",
    "run_in_background",
    "run_lazily",
    "runs_queries_concurrently",
    "session",
    "slots",
]
