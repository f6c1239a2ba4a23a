"""Pages that are made from the code are the code's, and links of the README lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from configuration_page import PAGE, page  # noqa: E402


def test_the_page_of_settings_is_up_to_date():
    assert PAGE.read_text() == page(), "run `make docs`"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_links_to_is_there(name: str):
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
