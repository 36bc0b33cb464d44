"""Nodes begun and ended on this machine, as `%nbray scale --nodes` and the page do it: with real daemons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import nbray
from nbray.dashboard.clusters import Clusters, NoCluster
from nbray.driver import scaling
from nbray.driver.viewer import Viewer
from nbray.util.state.watching import scale
from nbray.wire import connection_file, rundir


@pytest.fixture(scope="module")
def directory() -> Iterator[str]:
    """The runtime directory of a cluster of one CPU that `nbray start` began."""
    scaling.run("start", "--head", "--port", "0", "--num-cpus", "1", "--object-store-memory", str(2**24))
    begun = next(connection_file.known()).connection.directory
    yield begun
    scaling.run("stop", "--force")
    assert begun not in rundir.in_use()


def cpus(viewer: Viewer) -> list[float]:
    return [node["total"]["CPU"] / 10_000 for node in viewer.ask("nodes") if node["alive"]]


def test_nodes_are_begun_until_there_are_so_many_and_ended_until_there_are_so_few(directory: str) -> None:
    with Viewer(directory) as viewer:

        def nodes() -> Any:
            return viewer.ask("nodes")

        (did,) = scaling.scale(directory, nodes, 2, 2.0)
        assert did.startswith("began node ")
        assert cpus(viewer) == [1.0, 2.0]
        assert scaling.scale(directory, nodes, 2) == []
        with pytest.raises(ValueError, match="say which one is meant"):
            scale(viewer, "", 4)
        assert scaling.scale(directory, nodes, 1) == [did.replace("began", "ended")]
        assert cpus(viewer) == [1.0]
        assert scale(viewer, "", 4)["cpus"] == 4
        for impossible in (0, scaling.MOST_NODES + 1):
            with pytest.raises(ValueError, match="it can have 1 to 64, not"):
                scaling.scale(directory, nodes, impossible)
        (head,) = [node["node_id"] for node in nodes() if node["alive"]]
        with pytest.raises(PermissionError, match="it is the head"):
            scaling.remove(head, nodes)
        with pytest.raises(LookupError, match="has no node"):
            scaling.remove("00" * 8, nodes)


def test_a_page_of_one_cluster_sees_no_other(directory: str) -> None:
    nbray.init("local", num_cpus=1)
    every, one = Clusters(), Clusters(directory)
    try:
        (other,) = [each for each in every.listing() if not each["mine"]]
        assert [each["mine"] for each in one.listing()] == [True]
        with pytest.raises(NoCluster):
            one.look(other["id"], ["overview"])
        assert "no cluster" in one.snapshot(other["id"], ["overview"])["problem"]
    finally:
        every.close()
        one.close()
        nbray.shutdown()


@pytest.mark.parametrize("wrong", [0, -1, True, "2", float("nan"), float("inf"), 10**400, [2]])
def test_what_is_no_number_of_cpus_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="num_cpus is a number above 0"):
        scaling.checked_cpus(wrong)
