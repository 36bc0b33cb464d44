"""The small things of ray.util and ray.experimental: names, serializers, log_once, locations, the internal key-value store."""

import io
import sqlite3
import threading

import numpy as np
import pytest

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    from ray.experimental import internal_kv
    from ray.util.debug import reset_log_once
    import ray.experimental as experimental
else:
    from nbray import experimental
    from nbray.experimental import internal_kv
    from nbray.util.debug import reset_log_once


@ray.remote(num_cpus=0)
class Named:
    def ready(self):
        return True


def test_named_actors_are_listed_by_namespace():
    here = Named.options(name="here").remote()
    there = Named.options(name="there", namespace="elsewhere").remote()
    ray.get([here.ready.remote(), there.ready.remote()])
    assert ray.util.list_named_actors() == ["here"]
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    assert {"name": "there", "namespace": "elsewhere"} in everywhere
    assert {entry["name"] for entry in everywhere} == {"here", "there"}

    @ray.remote(num_cpus=0)
    def seen():
        return ray.util.list_named_actors()

    assert ray.get(seen.remote()) == ["here"]


class Connection:
    """What does not pickle as it is."""

    def __init__(self, path):
        self.path = path
        self.connection = sqlite3.connect(path)


def test_a_registered_serializer_is_used_everywhere_until_it_is_taken_back():
    ray.util.register_serializer(Connection, serializer=lambda c: c.path, deserializer=lambda path: Connection(path))
    try:
        assert ray.get(ray.put(Connection(":memory:"))).path == ":memory:"

        @ray.remote
        def path_of(each):
            return each[0].path, isinstance(each[0].connection, sqlite3.Connection)

        assert ray.get(path_of.remote([Connection(":memory:")])) == (":memory:", True)
    finally:
        ray.util.deregister_serializer(Connection)
    with pytest.raises(TypeError):
        ray.put(Connection(":memory:"))
    ray.util.deregister_serializer(Connection)


def test_the_address_of_this_node_is_that_of_the_cluster():
    assert ray.util.get_node_ip_address() in {node["NodeManagerAddress"] for node in ray.nodes()}


def test_log_once_is_true_once():
    assert [ray.util.log_once("key"), ray.util.log_once("key"), ray.util.log_once("other")] == [True, False, True]
    reset_log_once("key")
    assert ray.util.log_once("key")


def test_inspect_serializability_finds_the_culprit():
    lock = threading.Lock()

    def uses():
        return lock

    printed = io.StringIO()
    ok, failures = ray.util.inspect_serializability(uses, name="uses", print_file=printed)
    assert not ok
    assert [failure.obj for failure in failures] == [lock]
    assert "non-serializable" in printed.getvalue()

    class Holder:
        def __init__(self):
            self.lock = lock

    ok, failures = ray.util.inspect_serializability(Holder(), print_file=printed)
    assert not ok
    assert [failure.obj for failure in failures] == [lock]
    assert ray.util.inspect_serializability({"a": [1]}, print_file=printed) == (True, set())


def test_inspect_serializability_goes_no_deeper_than_it_is_told():
    lock = threading.Lock()

    class Holder:
        def __init__(self, inner):
            self.inner = inner

    outer = Holder(Holder(Holder(lock)))
    _, failures = ray.util.inspect_serializability(outer, depth=1, print_file=io.StringIO())
    assert [failure.obj for failure in failures] == [outer.inner]


def test_object_locations_say_node_and_size():
    small, large = ray.put(1), ray.put(np.zeros(100_000))

    @ray.remote(num_cpus=100)
    def never():
        return None

    pending = never.remote()
    found = experimental.get_object_locations([small, large, pending])
    assert set(found) == {small, large, pending}
    assert found[large]["node_ids"] == [ray.get_runtime_context().get_node_id()]
    assert found[large]["object_size"] > 800_000
    assert found[pending] == {**found[pending], "node_ids": [], "object_size": None}
    assert experimental.get_local_object_locations([large])[large]["node_ids"] == found[large]["node_ids"]
    ray.cancel(pending)


def test_the_internal_key_value_store_keeps_bytes():
    kv = internal_kv
    assert kv._internal_kv_initialized()
    assert kv._internal_kv_put("k/a", b"1", namespace="test") is False
    assert kv._internal_kv_put(b"k/a", "2", overwrite=False, namespace=b"test") is True
    assert kv._internal_kv_get("k/a", namespace="test") == b"1"
    assert kv._internal_kv_put("k/a", "2", namespace="test") is True
    assert kv._internal_kv_get(b"k/a", namespace=b"test") == b"2"
    assert kv._internal_kv_get("k/a", namespace="other") is None
    kv._internal_kv_put("k/b", "3", namespace="test")
    assert sorted(kv._internal_kv_list("k/", namespace="test")) == [b"k/a", b"k/b"]
    assert kv._internal_kv_exists("k/b", namespace="test")
    assert kv._internal_kv_del("k/a", namespace="test") == 1
    assert kv._internal_kv_del("k/", del_by_prefix=True, namespace="test") == 1
    assert not kv._internal_kv_exists("k/b", namespace="test")
