"""Resolution of a model: a local folder, or a hub name and commit. Safetensors only."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gio_spark.errors import ConfigError, InputError, MissingExtraError

# Only these files are downloaded: no pickled weights and no code.
_ALLOWED_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_DIGEST_BYTES = 1 << 20


def resolve_model(
    model: str | None, revision: str | None, *, embedder: str, extra: str
) -> tuple[Path, str]:
    """Folder of a model and its revision (commit of the hub, or digest of the folder).

    Raises:
        ConfigError: No model is set.
        InputError: The model is neither a folder nor on the hub.
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
        path = Path(snapshot_download(model, revision=revision, allow_patterns=_ALLOWED_FILES))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"Model '{model}' is no folder here and cannot be had from the hub"
            f"{f' at revision {revision}' if revision else ''}: {error}. Give a folder that "
            "every worker sees, or a hub name."
        ) from error
    return path, path.name


def is_folder(model: str | None) -> bool:
    """Whether the name of a model is a folder of this machine."""
    return bool(model) and Path(str(model)).expanduser().is_dir()


def folder_digest(folder: Path) -> str:
    """Digest (16 hex digits) of a model's files: names, sizes, first and last megabyte."""
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
            digest.update(stream.read(_DIGEST_BYTES))
            if size > _DIGEST_BYTES:
                stream.seek(max(size - _DIGEST_BYTES, _DIGEST_BYTES))
                digest.update(stream.read())
    return digest.hexdigest()[:16]
