"""Daemons of one cluster on one machine, each with its gateway: joining, being sent elsewhere, leaving."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec
import pytest

from nbray.driver.launch import Launched, start, stop
from nbray.exceptions import NodeStartError
from nbray.ids import HEAD, Address
from nbray.node.settings import NetworkSettings, NodeSettings
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from nbray.wire.auth import credentials
from tests.node.test_daemon import BARE, REPOSITORY, Driver, wait_for

CREDENTIALS = credentials("c" * 32, bytes(range(32)), "the test's own file")


def network(**fields: object) -> NetworkSettings:
    mine = CREDENTIALS
    known = NetworkSettings(mine.cluster, mine.secret, mine.server_public, mine.source)
    return msgspec.structs.replace(known, **fields)


@contextlib.contextmanager
def daemon(settings: NodeSettings) -> Iterator[Launched]:
    launched = start(settings)
    try:
        yield launched
    finally:
        stop(launched)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    bound = network(bind=("127.0.0.1", 0))
    with daemon(msgspec.structs.replace(BARE, num_cpus=1, keep=True, host="127.0.0.1", network=bound)) as launched:
        yield launched


def joining(head: Launched, **fields: object) -> NodeSettings:
    assert head.port is not None
    to_head = network(bind=("127.0.0.1", 0), join=("127.0.0.1", head.port))
    return msgspec.structs.replace(BARE, role="join", keep=True, host="127.0.0.1", network=to_head, **fields)


def alive(driver: Driver, head: Launched) -> set[str]:
    return {node["node_id"] for node in driver.ask("nodes", Address(head.node, HEAD)) if node["alive"]}


def test_a_task_that_has_no_room_here_is_sent_to_the_node_that_has_joined(head: Launched) -> None:
    with daemon(joining(head, resources={"alice": 1})) as other, contextlib.closing(Driver(head)) as driver:
        wait_for(lambda: len(alive(driver, head)) == 2, "the other node to join")
        driver.send(m.RequestLease(1, driver.address, m.Shape(to_amounts({"alice": 1})), job=driver.id))
        redirected = driver.expect(m.LeaseRedirected)
        assert redirected.to == other.node
        there = Address(other.node, other.node)
        driver.send(m.RequestLease(2, driver.address, m.Shape(to_amounts({"alice": 1})), hops=1, job=driver.id), there)
        granted = driver.expect(m.LeaseGranted)
        assert granted.worker.node == other.node
        driver.send(m.CancelTask(bytes(16)), granted.worker)
        assert driver.expect(m.LeaseLost).death.node == other.node


def test_a_node_that_leaves_is_gone_at_once(head: Launched) -> None:
    with contextlib.closing(Driver(head)) as driver:
        with daemon(joining(head)) as other:
            wait_for(lambda: len(alive(driver, head)) == 2, "the other node to join")
        assert driver.expect(m.NodeDied).node == other.node
        assert alive(driver, head) == {head.node.hex()}


def test_the_head_takes_the_others_with_it(head: Launched) -> None:
    with daemon(joining(head)) as other, contextlib.closing(Driver(head)) as driver:
        wait_for(lambda: len(alive(driver, head)) == 2, "the other node to join")
        stop(head)
        assert other.process.wait(20) == 0


def test_a_node_joins_the_head_that_takes_the_place_of_a_killed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    settings = msgspec.structs.replace(BARE, num_cpus=1, keep=True, host="127.0.0.1", network=network(bind=("127.0.0.1", 0)))
    with daemon(settings) as first, daemon(joining(first)) as other:
        with contextlib.closing(Driver(first)) as driver:
            wait_for(lambda: len(alive(driver, first)) == 2, "the other node to join")
        first.process.kill()
        first.process.wait()
        again = msgspec.structs.replace(settings, network=network(bind=("127.0.0.1", first.port)))
        with daemon(again) as second, contextlib.closing(Driver(second)) as driver:
            joined = wait_for(lambda: alive(driver, second) - {second.node.hex()}, "the other node to join again")
            assert joined != {other.node.hex()}, "a new life has a new name"
            stop(second)
        assert other.process.wait(20) == 0


def test_a_driver_elsewhere_brings_a_node_without_cpus_that_ends_with_it(head: Launched) -> None:
    assert head.port is not None
    outward = network(join=("127.0.0.1", head.port), role="client")
    with daemon(NodeSettings(role="client", object_store_memory=2**20, network=outward)) as client:
        assert client.port is None, "a laptop opens no port"
        with contextlib.closing(Driver(client)) as driver:
            nodes = wait_for(lambda: [n for n in driver.ask("nodes", Address(head.node, HEAD)) if not n["is_head"]], "to be seen")
            assert nodes[0]["total"].get("CPU", 0) == 0
            driver.send(m.RequestLease(1, driver.address, m.Shape(to_amounts({"CPU": 1})), job=driver.id))
            assert driver.expect(m.LeaseRedirected).to == head.node
            there = Address(head.node, head.node)
            driver.send(m.RequestLease(2, driver.address, m.Shape(to_amounts({"CPU": 1})), hops=1, job=driver.id), there)
            assert driver.expect(m.LeaseGranted).worker.node == head.node
        assert client.process.wait(20) == 0


def test_a_wrong_secret_is_told_by_the_place_it_came_from(head: Launched) -> None:
    settings = joining(head)
    assert settings.network is not None
    wrong = msgspec.structs.replace(settings.network, secret=bytes(32), source="$NBRAY_TOKEN")
    with pytest.raises(NodeStartError) as refused:
        start(msgspec.structs.replace(settings, network=wrong))
    assert "$NBRAY_TOKEN" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_a_port_that_is_taken_is_told(head: Launched) -> None:
    assert head.port is not None
    taken = network(bind=("127.0.0.1", head.port))
    with pytest.raises(NodeStartError, match="in use"):
        start(msgspec.structs.replace(BARE, network=taken))


def test_secrets_are_not_shown(head: Launched) -> None:
    secret = CREDENTIALS.secret.hex()
    assert secret not in repr(joining(head))
    with open(f"/proc/{head.process.pid}/cmdline") as command:
        assert secret not in command.read()
