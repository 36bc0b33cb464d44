"""`init` and `shutdown`: the context, a second session, and what is refused."""

import inspect
import os
import re
import subprocess
import sys
import warnings

import pytest

from tests.conformance.subject import ray


@ray.remote
def one():
    return 1


@ray.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


def test_what_runs_is_initialized_and_counts_its_cpus():
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 2


def test_init_again_is_the_same_session_when_errors_are_ignored():
    before = ray.get_runtime_context().get_job_id()
    context = ray.init(ignore_reinit_error=True)
    assert context.address_info["address"]
    assert ray.get_runtime_context().get_job_id() == before


def test_functions_and_classes_stay_usable_in_the_next_session_and_its_context_ends_it():
    assert ray.get(one.remote()) == 1
    assert ray.get(Counter.remote().add.remote()) == 1
    ray.shutdown()
    ray.shutdown()
    assert not ray.is_initialized()
    with ray.init(num_cpus=2, namespace="next") as context:
        assert ray.is_initialized()
        assert context.address_info["address"]
        assert context.address_info["node_id"] == ray.get_runtime_context().get_node_id()
        assert isinstance(context.dashboard_url, str | None)
        assert ray.get_runtime_context().namespace == "next"
        assert ray.get(one.remote()) == 1
        assert ray.get(Counter.remote().add.remote()) == 1
    assert not ray.is_initialized()


@pytest.mark.parametrize(("namespace", "error"), [("", ValueError), (1, TypeError)])
def test_a_namespace_is_a_string_with_something_in_it(namespace, error):
    ray.shutdown()
    with pytest.raises(error):
        ray.init(num_cpus=1, namespace=namespace)


def test_an_unknown_option_is_refused_by_its_name():
    ray.shutdown()
    with pytest.raises((TypeError, RuntimeError), match="num_cpu_s"):
        ray.init(num_cpu_s=1)


@pytest.mark.parametrize("ask", [ray.nodes, ray.cluster_resources, ray.available_resources])
def test_questions_about_the_cluster_start_none(ask):
    ray.shutdown()
    with pytest.raises(Exception, match="(?i)not been started|has not been|init"):
        ask()
    assert not ray.is_initialized()


def test_the_options_of_init_and_what_they_are_without_being_said():
    said = inspect.signature(ray.init).parameters
    defaults = {name: parameter.default for name, parameter in said.items()}
    assert defaults.pop("address") is None
    expected = {
        **dict.fromkeys(["num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "namespace", "runtime_env"]),
        **dict.fromkeys(["logging_config", "job_config"]),
        "ignore_reinit_error": False,
        "configure_logging": True,
    }
    assert {name: defaults[name] for name in expected} == expected
    assert all(parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or name == "address" for name, parameter in said.items())


HIDDEN = {
    "include_dashboard": False,
    "dashboard_host": "127.0.0.1",
    "dashboard_port": 8299,
    "_system_config": None,
    "_memory": None,
    "_node_ip_address": None,
    "_node_name": None,
    "_metrics_export_port": None,
    "_tracing_startup_hook": None,
    "_temp_dir": None,
    "_plasma_directory": None,
    "object_spilling_directory": None,
    "_enable_object_reconstruction": False,
    "_driver_object_store_memory": None,
}


def test_options_that_programs_pass_although_they_do_little_are_taken():
    ray.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=1, logging_level="ERROR", log_to_driver=False, configure_logging=False, **HIDDEN)
    try:
        assert ray.get(one.remote()) == 1
    finally:
        ray.shutdown()


@pytest.mark.differs("options-without-effect")
@pytest.mark.parametrize("option", [{"_node_name": "head"}, {"_temp_dir": "/tmp/elsewhere"}, {"local_mode": True}])
def test_an_option_without_effect_says_so(option):
    ray.shutdown()
    with pytest.warns(UserWarning, match=rf"{next(iter(option))}=.* has no effect: "):
        ray.init(num_cpus=1, **option)
    ray.shutdown()


@pytest.mark.parametrize(("option", "error"), [({"num_cpus": -1}, ValueError), ({"resources": {"CPU": 1}}, Exception)])
def test_amounts_that_cannot_be_are_refused(option, error):
    ray.shutdown()
    with pytest.raises(error):
        ray.init(**option)
    assert not ray.is_initialized()


def look_up():
    with pytest.raises(ValueError, match="Failed to look up actor with name"):
        ray.get_actor("nobody")


STARTERS = {
    "put": lambda: ray.put(1),
    "wait": lambda: ray.wait([]),
    "remote": lambda: one.remote(),
    "an actor": lambda: Counter.remote(),
    "get_actor": look_up,
    "get_gpu_ids": lambda: ray.get_gpu_ids(),
    "get_runtime_context": lambda: ray.get_runtime_context(),
    "list_named_actors": lambda: ray.util.list_named_actors(),
}


@pytest.mark.parametrize("what", STARTERS)
def test_the_first_use_starts_a_cluster(what):
    ray.shutdown()
    STARTERS[what]()
    assert ray.is_initialized()
    ray.shutdown()


def test_the_first_use_starts_none_when_that_was_turned_off():
    program = f"import {ray.__name__} as ray\ntry:\n    ray.put(1)\nexcept Exception as error:\n    print(error, ray.is_initialized())"
    environment = {**os.environ, "RAY_ENABLE_AUTO_CONNECT": "0"}  # read when the package is imported
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert re.search("(?i)not been started|init", ran.stdout)
    assert ran.stdout.endswith("False\n")
