"""Labelled tasks for the metrics benchmark: tables, weather, text. Public data, not shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from gio_spark.engine import encode_vectors
from gio_spark.gime import Constants, Sample, Task, get_profile, in_blocks
from gio_spark.gime.mergeable_sums import on_grid

HOUR = 3_600_000_000
# Task -> file, column of the label, its value that counts as 1, columns that are left out.
TABLES: dict[str, tuple[str, str, object, list[str]]] = {
    "adult": ("income_evaluation.csv.gz", "income", ">50K", []),
    # The duration of a call is known only after its outcome.
    "bank": ("bank-full.csv.gz", "y", "yes", ["duration"]),
    "shoppers": ("online_shoppers_intention.csv.gz", "Revenue", True, []),
}


@dataclass
class Case:
    """A named task: the pool's rows as roles, features and labels, held-out rows."""

    name: str
    sample: Sample
    cells: np.ndarray
    task: Task


def keys(values) -> np.ndarray:
    """Hash strings to integers, as the engine does for key columns."""
    return pd.util.hash_array(np.asarray(values, dtype=object)).view(np.int64)


def grouped(features: np.ndarray, target: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Cluster the pool and assign both sides: cells, squared distances, the target's cells."""
    model = MiniBatchKMeans(k, random_state=0, n_init=1, batch_size=4096).fit(features)
    away = np.min(model.transform(features), axis=1) ** 2
    return model.predict(features), away, model.predict(target)


def _mixed(frame: pd.DataFrame, numeric: list[str], categorical: list[str]) -> tuple:
    """Numbers standardised and categories one-hot, for clustering and the model."""
    numbers = frame[numeric].astype(float)
    filled = numbers.fillna(numbers.median())
    hot = pd.get_dummies(frame[categorical], dummy_na=True, dtype=np.float32)
    return ((filled - filled.mean()) / filled.std()).to_numpy(np.float32), hot.to_numpy()


def _roles(frame: pd.DataFrame, numeric: list[str], categorical: list[str]) -> dict:
    columns = {f"numeric:{c}": pa.array(frame[c].astype(float), from_pandas=True) for c in numeric}
    for c in categorical:
        null = frame[c].isna().to_numpy()
        columns[f"categorical:{c}"] = pa.array(keys(frame[c].astype(str)), mask=null)
    return columns


def tabular(data: Path, which: str, seed: int = 0, k: int = 64, limit: int | None = None) -> Case:
    """A table with a label as a stand-in for click-through: AUC on held-out rows."""
    file, label_column, positive, left_out = TABLES[which]
    frame = pd.read_csv(data / "tabular" / file, skipinitialspace=True)
    frame.columns = [c.strip() for c in frame.columns]
    frame = frame.replace(["?", "unknown"], np.nan)
    label = (frame.pop(label_column) == positive).astype(int).to_numpy()
    frame = frame.drop(columns=left_out)
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]
    categorical = [c for c in frame if c not in numeric]
    numbers, hot = _mixed(frame, numeric, categorical)
    features = np.hstack([numbers, hot])
    order = np.random.default_rng(seed).permutation(len(frame))
    held, pool = order[: len(order) // 4], order[len(order) // 4 :][:limit]
    cells, _, other = grouped(features[pool], features[held], k)
    constants = Constants(
        {
            **get_profile("tabular").defaults,
            "fields": tuple(_roles(frame[:1], numeric, categorical)),
            "clusters": k,
        }
    )

    def table(rows: np.ndarray, cell: np.ndarray) -> pa.Table:
        part = frame.iloc[rows]
        return pa.table({**_roles(part, numeric, categorical), "cluster": cell})

    sample = Sample.from_arrow(table(pool, cells), "tabular", constants, table(held, other))
    task = Task(
        features[pool], label[pool], features[held], label[held], measure="auc", proxy="boosting"
    )
    return Case(which, sample, cells, task)


def weather(data: Path, seed: int = 0, k: int = 64, blocks: int = 1000) -> Case:
    """Beijing stations: PM2.5 a day ahead at one station, learnt from the other eleven.

    The unit of selection is a station's day: 24 hours are taken or left together.
    """
    frame = pd.read_csv(next((data / "beijing_air").glob("*.csv.xz")))
    moment = pd.to_datetime(frame[["year", "month", "day", "hour"]])
    frame["time"] = moment.astype("datetime64[us]").astype(np.int64)
    frame["ahead"] = frame.groupby("station")["PM2.5"].shift(-24)
    frame = frame[frame["ahead"].notna()].reset_index(drop=True)
    numeric = ["PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "WSPM"]
    numbers = frame[numeric].astype(float)
    filled = numbers.fillna(numbers.median())
    angle = 2 * np.pi * np.stack([frame["hour"] / 24, frame["month"] / 12], axis=1)
    features = np.hstack(
        [(filled - filled.mean()) / filled.std(), np.sin(angle), np.cos(angle)]
    ).astype(np.float32)
    rng = np.random.default_rng(seed)
    station = frame["station"].to_numpy()
    day = (frame["time"] // (24 * HOUR)).to_numpy()
    number = pd.factorize(pd.MultiIndex.from_arrays([station, day]))[0]
    whole = np.flatnonzero(np.bincount(number) == 24)
    home = np.zeros(number.max() + 1, bool)
    home[number[station == "Gucheng"]] = True
    own, away = (rng.permutation(whole[home[whole] == side]) for side in (True, False))

    def rows_of(chosen: np.ndarray) -> np.ndarray:
        order = np.argsort(number, kind="stable")
        starts = np.r_[0, np.cumsum(np.bincount(number))]
        return np.concatenate([order[starts[c] : starts[c + 1]] for c in chosen])

    target, held, pool = (rows_of(c) for c in (own[:125], own[125:375], away[:blocks]))
    cells, _, other = grouped(features[pool], features[target], k)
    days, their_days = (features[at].reshape(-1, 24, features.shape[1]) for at in (pool, target))
    day_cells, _, their_cells = grouped(days.mean(axis=1), their_days.mean(axis=1), k)
    constants = Constants(
        {
            **get_profile("spatiotemporal").defaults,
            "fields": tuple(f"numeric:{c}" for c in numeric),
            "clusters": k,
        }
    )

    def table(at: np.ndarray, cell: np.ndarray) -> pa.Table:
        part = frame.iloc[at]
        return pa.table(
            {
                **_roles(part, numeric, []),
                "station": keys(part["station"]),
                "event_time": part["time"].to_numpy(),
                "ingest_time": part["time"].to_numpy() + HOUR,
                "cluster": cell,
            }
        )

    sample = Sample.from_arrow(
        table(pool, cells), "spatiotemporal", constants, table(target, other)
    )
    ahead = frame["ahead"].to_numpy()
    task = Task(
        features[pool], ahead[pool], features[held], ahead[held], measure="skill", proxy="boosting"
    )
    joined, task = in_blocks(sample, task, np.repeat(np.arange(blocks), 24), day_cells, their_cells)
    return Case("weather", joined, day_cells, task)


def text(
    data: Path, seed: int = 0, k: int = 128, others: int = 9000, limit: int | None = None
) -> Case:
    """CLINC150 intents of three domains, to be learnt from a mixed pool of 14,000 texts."""
    file = next((data / "text_pool").glob("*.tsv.gz"))
    frame = pd.read_csv(file, sep="\t", quoting=3, keep_default_na=False)
    frame = frame[frame["domain"] != "domain"].reset_index(drop=True)
    rng = np.random.default_rng(seed)
    wanted = {"clinc_banking", "clinc_travel", "clinc_work"}
    own = rng.permutation(np.flatnonzero(frame["domain"].isin(wanted).to_numpy()))
    rest = rng.permutation(np.flatnonzero(~frame["domain"].str.startswith("clinc").to_numpy()))
    held, target = own[:1200], own[1200:1700]
    pool = rng.permutation(np.r_[own[1700:], rest[:others]])[:limit]
    texts = frame["text"]
    words = TfidfVectorizer(min_df=2, sublinear_tf=True, ngram_range=(1, 2), max_features=40_000)
    words.fit(texts.iloc[pool])
    squeezed = TruncatedSVD(96, random_state=0).fit(words.transform(texts.iloc[pool]))

    def vectors(rows: np.ndarray) -> np.ndarray:
        return normalize(squeezed.transform(words.transform(texts.iloc[rows]))).astype(np.float32)

    x, t, h = vectors(pool), vectors(target), vectors(held)
    cells, away, other = grouped(x, t, k)
    constants = Constants({"clusters": k, "dimension": 96, "probe_grid": on_grid(t[:128])})

    def table(rows: np.ndarray, v: np.ndarray, cell: np.ndarray, **more: np.ndarray) -> pa.Table:
        part = frame.iloc[rows]
        return pa.table(
            {
                "vector": encode_vectors(v),
                "cluster": cell,
                "tokens": part["text"].str.split().str.len().to_numpy(),
                "source": keys(part["domain"]),
                "content": keys(part["text"]),
                **more,
            }
        )

    sample = Sample.from_arrow(
        table(pool, x, cells, distance=away), "text", constants, table(target, t, other)
    )
    names = frame["label"].where(frame["domain"].isin(wanted), "(other)")
    codes = pd.factorize(names)[0]
    task = Task(x, codes[pool], h, codes[held], measure="accuracy", proxy="linear")
    return Case("text", sample, cells, task)
