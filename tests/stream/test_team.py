"""Readers that share the events of a server know which clients are of their team."""

import subprocess
import sys

import pytest

from psana_dask.stream import team as module
from psana_dask.stream.team import Team

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX shared memory is Linux only")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)


def test_members_come_and_go(tmp_path):
    one, two, other = (Team(str(tmp_path / "memory"), word) for word in (7, 7, 9))
    one.join(0)
    other.join(1)
    assert one.members() == {0}
    two.join(2)
    assert one.members() == two.members() == {0, 2}
    two.join(3)
    assert one.members() == {0, 3}
    two.leave()
    two.leave()
    assert one.members() == {0}
    assert other.members() == {1}


def test_a_process_that_died_is_no_member(tmp_path):
    text = "import sys; from psana_dask.stream.team import Team; Team(sys.argv[1], 7).join(4)"
    subprocess.run([sys.executable, "-c", text, str(tmp_path / "memory")], check=True)
    assert list(tmp_path.iterdir())
    assert Team(str(tmp_path / "memory"), 7).members() == set()
