"""What code is told of where it runs."""

from __future__ import annotations

import os
import warnings

import pytest

from tests.conformance.subject import ray


def context():
    return ray.get_runtime_context()


@ray.remote
def facts():
    here = context()
    return {
        "task": here.get_task_id(),
        "name": here.get_task_name(),
        "function": here.get_task_function_name(),
        "actor": here.get_actor_id(),
        "worker": here.get_worker_id(),
        "node": here.get_node_id(),
        "job": here.get_job_id(),
        "session": here.get_session_name(),
        "temp": here.get_temp_dir(),
        "labels": here.get_node_labels(),
        "address": here.gcs_address,
    }


@ray.remote(max_restarts=1, max_task_retries=1)
class Actor:
    def function(self):
        return context().get_task_function_name()

    def restarted(self):
        return context().was_current_actor_reconstructed

    def ids(self):
        here = context()
        return here.get_actor_id(), here.get_actor_name(), here.current_actor

    def said_of(self, name):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(context(), name)
        return " ".join(str(each.message) for each in caught)

    def end(self):
        if not context().was_current_actor_reconstructed:
            os._exit(1)


def test_a_task_and_its_driver_agree_on_where_they_are():
    seen, here = ray.get(facts.remote()), context()
    assert seen["node"] == here.get_node_id()
    assert seen["job"] == here.get_job_id()
    assert seen["session"] == here.get_session_name()
    assert seen["worker"] != here.get_worker_id()
    assert seen["labels"] == here.get_node_labels()


def test_a_task_is_named_by_its_function_or_its_option_and_its_function_by_its_module_too():
    seen = ray.get(facts.remote())
    assert seen["name"] == "facts"
    assert seen["function"].endswith("test_runtime_context.facts")
    renamed = ray.get(facts.options(name="other").remote())
    assert renamed["name"] == "other"
    assert renamed["function"] == seen["function"]


def test_the_function_of_an_actors_call_is_named_with_its_class():
    assert ray.get(Actor.remote().function.remote()).endswith("test_runtime_context.Actor.function")


def test_a_driver_runs_no_task_and_no_actor():
    here = context()
    assert here.get_task_name() is None
    assert here.get_task_function_name() is None
    assert here.get_actor_id() is None


def test_the_temporary_directory_is_there():
    assert os.path.isdir(context().get_temp_dir())
    assert os.path.isdir(ray.get(facts.remote())["temp"])


def test_a_restarted_actor_knows_that_it_is_one():
    actor = Actor.remote()
    assert ray.get(actor.restarted.remote()) is False
    ray.get(actor.end.remote())
    assert ray.get(actor.restarted.remote()) is True


def test_an_actor_knows_itself():
    actor = Actor.options(name="known", namespace="here").remote()
    id_, name, handle = ray.get(actor.ids.remote())
    assert name == "known"
    assert ray.get(handle.ids.remote())[0] == id_


@pytest.mark.parametrize("name", ["job_id", "node_id", "task_id", "actor_id"])
def test_older_names_say_what_to_use_instead(name):
    assert f"Use get_{name}() instead" in ray.get(Actor.remote().said_of.remote(name))


def test_get_gives_all_of_it_with_a_warning():
    with pytest.warns(DeprecationWarning, match="get_xxx_id"):
        told = context().get()
    assert {"job_id", "node_id", "namespace"} <= told.keys()
    assert told["job_id"].hex() == context().get_job_id()


def test_older_names_give_ids_as_objects():
    @ray.remote
    def ids():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here = context()
            return [here.job_id, here.node_id, here.task_id], [here.get_job_id(), here.get_node_id(), here.get_task_id()]

    objects, texts = ray.get(ids.remote())
    assert [type(each).__name__ for each in objects] == ["JobID", "NodeID", "TaskID"]
    assert [each.hex() for each in objects] == texts


def test_the_heads_address_is_a_string_everywhere():
    assert isinstance(context().gcs_address, str)
    assert ray.get(facts.remote())["address"] == context().gcs_address
