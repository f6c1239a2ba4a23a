"""Where Spark comes from, what it can do, and the few ways data cross between it and numpy."""

from gio_spark.engine.arrow import (
    decode_vectors,
    encode_vectors,
    group_arrow,
    map_arrow,
    output_schema,
)
from gio_spark.engine.background import (
    queries_side_by_side,
    run_in_background,
    run_when_asked,
    side_by_side,
)
from gio_spark.engine.broadcast import BroadcastArrays, broadcast_arrays, keep_newest
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
    "group_arrow",
    "hash53",
    "hash_sample",
    "hash_samples",
    "hash_share",
    "keep_newest",
    "map_arrow",
    "output_schema",
    "queries_side_by_side",
    "row_hash",
    "run_in_background",
    "run_when_asked",
    "session",
    "side_by_side",
    "slots",
]
