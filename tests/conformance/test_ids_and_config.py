"""Identifiers as objects, JobConfig, LoggingConfig, the older client builder, and what is there to be refused."""

from __future__ import annotations

import importlib
import json
import logging
import pickle

import pytest

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 2, "namespace": "from_init"}
IDS = ["ActorClassID", "ActorID", "ClusterID", "FunctionID", "JobID", "NodeID", "PlacementGroupID", "TaskID", "WorkerID"]
IDS += [pytest.param("UniqueID", marks=pytest.mark.differs("hex-of-unique-ids"))]


@pytest.mark.parametrize("name", IDS)
def test_an_id_is_a_value_and_its_hex_makes_it_again(name: str) -> None:
    kind = getattr(ray, name)
    nil = kind.nil()
    assert nil.is_nil()
    assert kind.from_hex(nil.hex()) == nil
    assert kind(nil.binary()) == nil
    assert len(nil.binary()) == kind.size()
    other = kind(b"\x01" * kind.size())
    assert not other.is_nil()
    assert other != nil
    assert {nil: 1, other: 2}[kind.from_hex(other.hex())] == 2
    assert pickle.loads(pickle.dumps(other)) == other
    assert repr(other) == f"{name}({other.hex()})"
    with pytest.raises(ValueError, match="bytes|length"):
        kind(b"too short")


def test_ids_of_the_runtime_context_can_be_parsed() -> None:
    context = ray.get_runtime_context()
    assert ray.JobID.from_hex(context.get_job_id()).hex() == context.get_job_id()
    assert ray.NodeID.from_hex(context.get_node_id()).hex() == context.get_node_id()


@pytest.mark.differs("list-of-languages")
def test_modes_and_languages() -> None:
    assert (ray.SCRIPT_MODE, ray.WORKER_MODE) == (0, 1)
    assert [language.name for language in ray.Language] == ["PYTHON", "JAVA", "CPP"][: len(list(ray.Language))]


def test_a_job_config_says_what_init_says() -> None:
    config = importlib.import_module(f"{ray.__name__}.job_config").JobConfig(metadata={"a": "1"}, ray_namespace="lab")
    config.set_metadata("b", "2")
    assert config.metadata == {"a": "1", "b": "2"}
    assert config.ray_namespace == "lab"
    config.set_runtime_env({"env_vars": {"X": "1"}})
    assert config.runtime_env == {"env_vars": {"X": "1"}}
    with pytest.raises(TypeError, match="code search path is incorrect"):
        type(config)(code_search_path="/tmp")


def test_a_logging_config_is_checked() -> None:
    with pytest.raises(ValueError, match="Invalid encoding type: INVALID"):
        ray.LoggingConfig(encoding="INVALID")
    with pytest.raises(ValueError, match="Unknown python logging standard attribute: nothing"):
        ray.LoggingConfig(additional_log_standard_attrs=["nothing"])
    assert ray.LoggingConfig().log_level == "INFO"


def test_init_takes_namespace_and_environment_from_a_job_config_and_logs_in_tasks_are_json() -> None:
    ray.shutdown()
    config = importlib.import_module(f"{ray.__name__}.job_config").JobConfig(
        ray_namespace="lab", runtime_env={"env_vars": {"RATE": "0.1"}}, metadata={"owner": "me"}
    )
    logs = ray.LoggingConfig(encoding="JSON", log_level="INFO", additional_log_standard_attrs=["name"])
    before = list(logging.getLogger().handlers), logging.getLogger().level
    ray.init(num_cpus=1, job_config=config, logging_config=logs)
    try:

        @ray.remote
        def written() -> tuple[str, str | None, str]:
            import io
            import os
            import sys

            caught, sys.stderr = io.StringIO(), sys.stderr
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler):
                    handler.setStream(caught)
            if sys.stderr is not caught:
                old, sys.stderr = sys.stderr, caught
            logging.getLogger("mine").info("hello %s", "there")
            sys.stderr = old
            return caught.getvalue(), os.environ.get("RATE"), ray.get_runtime_context().namespace

        line, rate, namespace = ray.get(written.remote())
        told = json.loads(line)
        assert (told["message"], told["levelname"], told["name"], told["task_name"]) == ("hello there", "INFO", "mine", "written")
        assert told["job_id"] == ray.get_runtime_context().get_job_id()
        assert (rate, namespace) == ("0.1", "lab")
    finally:
        ray.shutdown()
        logging.getLogger().handlers[:], _ = before
        logging.getLogger().setLevel(before[1])
