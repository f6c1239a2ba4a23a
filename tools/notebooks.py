"""Run the notebooks and keep their outputs: text, tables and figures, without a Jupyter server."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


def run(notebook: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the code cells of a notebook in order, as Jupyter would.

    Standard error (progress of runs) is not kept, and the folder's own path is left out.

    Args:
        notebook: An .ipynb file.
        folder: Where it runs; its relative paths begin there.

    Returns:
        The notebook with its outputs, and the names that its cells left.
    """
    content = json.loads(notebook.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        with mpl.rc_context():
            mpl.use("Agg")
            code = (cell for cell in content["cells"] if cell["cell_type"] == "code")
            for number, cell in enumerate(code, 1):
                where = f"{notebook.name}[{cell['id']}]"
                cell["execution_count"] = number
                cell["outputs"] = _outputs("".join(cell["source"]), where, names, number)
    finally:
        os.chdir(before)
    own = {str(folder) + os.sep, str(folder.resolve()) + os.sep}
    return _without(content, sorted(own, key=len, reverse=True)), names


def _outputs(source: str, where: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run one cell: what it prints, its figures, and the value of its last expression."""
    from matplotlib import pyplot as plt

    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, where, "exec"), names)  # noqa: S102
        if last is not None:
            shown = ast.Expression(last.value)
            value = eval(compile(shown, where, "eval"), names)  # noqa: S307
    if source.rstrip().endswith(";"):
        value = None
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        text = _lines(printed.getvalue())
        found.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data = _data(value)
        found.append(
            {
                "data": data,
                "execution_count": number,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    for figure in map(plt.figure, plt.get_fignums()):
        data = {"image/png": base64.b64encode(_picture(figure)).decode()}
        found.append({"data": data, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return found


def _picture(figure: Figure) -> bytes:
    """Draw a figure as PNG of 192 colours: half the size, and the same bytes each time."""
    with io.BytesIO() as drawn, io.BytesIO() as small:
        figure.savefig(drawn, format="png", bbox_inches="tight")
        picture = Image.open(drawn).convert("RGB").quantize(192, dither=Image.Dither.NONE)
        picture.save(small, format="png", optimize=True)
        return small.getvalue()


def _data(value: object) -> dict[str, Any]:
    data = {"text/plain": _lines(repr(value))}
    page = getattr(value, "_repr_html_", lambda: None)()
    return data if page is None else {"text/html": _lines(page), **data}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _without(part: Any, paths: list[str]) -> Any:
    """Leave paths out of every text of a notebook."""
    if isinstance(part, dict):
        return {key: _without(value, paths) for key, value in part.items()}
    if isinstance(part, list):
        return [_without(value, paths) for value in part]
    if isinstance(part, str):
        for path in paths:
            part = part.replace(path, "")
    return part


def main(words: list[str]) -> None:
    """Run the notebooks that are named, or all, and write them with their outputs."""
    for notebook in [Path(word) for word in words] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            content, _ = run(notebook.resolve(), Path(folder))
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        notebook.write_text(text, encoding="utf-8")
        print(f"==> Wrote {notebook} ({len(text) // 1000:,} KB)")


if __name__ == "__main__":
    main(sys.argv[1:])
