"""Finding a model: a local folder, or a hub name pinned to its commit. Safetensors only."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gio_spark.errors import ConfigError, InputError, MissingExtraError

# No pickled weights and no code: what is not listed is not fetched.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
_SAMPLE = 1 << 20


def resolve_model(
    model: str | None, revision: str | None, *, embedder: str, extra: str
) -> tuple[Path, str]:
    """Return the folder of a model and its revision (commit of the hub, or digest of the folder).

    Raises:
        ConfigError: No model is named.
        InputError: There is neither such a folder nor such a model on the hub.
    """
    if not model:
        raise ConfigError(f"embedder.model is unset: '{embedder}' needs a folder or a hub name.")
    if is_folder(model):
        folder = Path(model).expanduser()
        return folder, folder_digest(folder)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        purpose = f"Fetching the model '{model}'"
        raise MissingExtraError("huggingface_hub", extra, purpose) from error
    try:
        path = Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"Model '{model}' is no folder here and cannot be had from the hub"
            f"{f' at revision {revision}' if revision else ''}: {error}. Give a folder that "
            "every worker sees, or a hub name."
        ) from error
    return path, path.name


def is_folder(model: str | None) -> bool:
    """Tell whether a model's name is a folder of this machine."""
    return bool(model) and Path(str(model)).expanduser().is_dir()


def folder_digest(folder: Path) -> str:
    """Return 16 hex characters for a model's files: names, sizes, first and last megabyte."""
    digest = hashlib.sha256()
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in {".safetensors", ".json", ".txt"}
    )
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"Folder '{folder}' has no .safetensors file: no model is there.")
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            if size > _SAMPLE:
                stream.seek(max(size - _SAMPLE, _SAMPLE))
                digest.update(stream.read())
    return digest.hexdigest()[:16]
