"""Every public name of the algorithms is documented, and what the page names exists."""

import re
from pathlib import Path

import pytest

from psana_dask import algorithms, analysis

PAGE = (Path(__file__).parents[2] / "docs/algorithms.md").read_text()


@pytest.mark.parametrize("package", [algorithms, analysis])
def test_every_name_is_documented_and_importable(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert re.search(rf"\b{name}\b", PAGE), f"{package.__name__}.{name} is not in docs/algorithms.md"
        assert getattr(package, name).__doc__, name


def test_what_the_page_names_exists():
    for package, name in re.findall(r"\b(algorithms|analysis)\.(\w+)\(", PAGE):
        assert hasattr({"algorithms": algorithms, "analysis": analysis}[package], name), name


def test_an_unknown_name_is_an_attribute_error():
    for package in (algorithms, analysis):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = package.nothing
