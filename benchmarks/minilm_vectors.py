"""MiniLM vectors of all texts of the quality benchmark, made once: one row per text.

    python benchmarks/minilm_vectors.py --data PATH --model FOLDER --out FILE.npy [--threads 1]

FOLDER holds an ONNX export of all-MiniLM-L6-v2 and its tokenizer.json. Needs `onnxruntime` and
`tokenizers`, which the project does not install. A run that was stopped goes on where it was.
`bench_quality.py --vectors FILE.npy` reads the file.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from quality_tasks import pool_texts
from tasks import data_folder

DIMENSION, BATCH = 384, 64
MOST_TOKENS = 256  # what the model's own pipeline cuts texts at
_MOST_LETTERS = 4 * MOST_TOKENS  # about; longer texts cost no more than these
_EVERY_S = 30.0

Encode = Callable[[list[str]], np.ndarray]


def pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean over a text's own tokens, at length 1, as the model's own pipeline does.

    Args:
        hidden: (n, t, d) of all tokens.
        mask: (n, t), 1 where a token is of the text and no padding.
    """
    weight = mask[:, :, None].astype(np.float32)
    mean = (hidden * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def files_of(model: Path) -> tuple[Path, Path]:
    """Return the ONNX file and the tokenizer of a folder, or of one ONNX file of several."""
    found = [model] if model.is_file() else sorted(model.rglob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(str(f) for f in found) or "none"
        raise SystemExit(f"--model {model}: one .onnx file is needed, found: {names}.")
    for folder in (found[0].parent, *found[0].parents[1:2], model):
        if (folder / "tokenizer.json").is_file():
            return found[0], folder / "tokenizer.json"
    raise SystemExit(f"--model {model}: no tokenizer.json beside {found[0].name} or one above.")


def encoder(network: Path, tokens: Path, threads: int) -> Encode:
    """Open model and tokenizer; return what turns some texts into rows of length 1."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # the tokenizer's
    try:
        import onnxruntime
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SystemExit(f"{error.name} is missing: pip install onnxruntime tokenizers") from error
    tokenizer = Tokenizer.from_file(str(tokens))
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        str(network), options, providers=["CPUExecutionProvider"]
    )
    names = {given.name for given in session.get_inputs()}
    out = session.get_outputs()[0]
    if len(out.shape) != 3:
        raise SystemExit(f"{network}: the first output, {out.name}, is no vector per token.")

    def encode(texts: list[str]) -> np.ndarray:
        found = tokenizer.encode_batch(texts)
        mask = np.array([one.attention_mask for one in found], np.int64)
        ids = np.array([one.ids for one in found], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = session.run([out.name], {k: v for k, v in given.items() if k in names})[0]
        return pooled(hidden, mask)

    return encode


def finished(rows: np.ndarray) -> bool:
    """Tell whether all rows have been written whole: they have length 1."""
    return bool(np.all(np.abs(np.linalg.norm(rows.astype(np.float32), axis=1) - 1) < 0.01))


def fill(texts: Sequence[str], encode: Encode, vectors: np.ndarray, *, batch: int = BATCH) -> int:
    """Write the vectors of the texts that have none yet; return how many texts that were.

    Texts of like length go together, longest first, so that little is padded. A quantised model's
    vectors depend a little on their batch: batches are the same whenever a run was stopped.
    """
    letters = np.array([min(len(text), _MOST_LETTERS) for text in texts])
    order = np.argsort([-len(text) for text in texts], kind="stable")
    batches = np.split(order, range(batch, len(order), batch))
    left = [part for part in batches if not finished(vectors[part])]
    to_do, whole = sum(map(len, left)), sum(int(letters[part].sum()) for part in left)
    told, began = time.monotonic(), time.process_time()  # a paused run is no slow one
    rows = work = 0
    for part in left:
        vectors[part] = encode([texts[i] for i in part])
        rows, work = rows + len(part), work + int(letters[part].sum())
        now = time.monotonic()
        if now - told >= _EVERY_S:
            told, took = now, time.process_time() - began
            print(
                f"  {len(texts) - to_do + rows:,} of {len(texts):,} texts, {rows / took:.0f} per "
                f"CPU second, {took * (whole / work - 1) / 60:.1f} CPU minutes left",
                flush=True,
            )
    return to_do


def main() -> None:
    """Make the file, or what is missing of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--model", type=Path, required=True, help="folder of the ONNX export")
    parser.add_argument("--out", type=Path, required=True, help="the .npy file to write")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.out.exists():
        raise SystemExit(f"{given.out} is there; remove it to make it anew.")
    network, tokens = files_of(given.model)
    encode = encoder(network, tokens, given.threads)
    texts = pool_texts(data_folder(given.data)).tolist()
    # Texts or a model of another kind begin anew instead of going on with this file.
    mark = zlib.crc32(network.read_bytes(), zlib.crc32("\n".join(texts).encode()))
    part = given.out.with_name(f"{given.out.stem}-{mark:08x}.part.npy")
    if part.exists():
        vectors = np.lib.format.open_memmap(part, mode="r+")
    else:
        part.parent.mkdir(parents=True, exist_ok=True)
        vectors = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.float16, shape=(len(texts), DIMENSION)
        )
    began = time.monotonic()
    rows = fill(texts, encode, vectors)
    vectors.flush()
    part.replace(given.out)
    print(f"written {given.out}: {len(texts):,} texts, {rows:,} of them in "
          f"{(time.monotonic() - began) / 60:.1f} min")  # fmt: skip


if __name__ == "__main__":
    main()
