"""What programs import: the modules and names of Ray that are here, and what is said of those that are not."""

from __future__ import annotations

import importlib
import warnings

import pytest

from tests.conformance.subject import ray

#: Module below `ray` -> names that programs import from it.
NAMES = {
    "actor": "ActorClass ActorHandle ActorMethod exit_actor method",
    "client_builder": "ClientBuilder ClientContext client",
    "cloudpickle": "CloudPickler dump dumps load loads register_pickle_by_value unregister_pickle_by_value",
    "cross_language": "cpp_function java_actor_class java_function",
    "dag": "ClassMethodNode ClassNode DAGInputData DAGNode FunctionNode InputAttributeNode InputNode MultiOutputNode",
    "dag.class_node": "ClassMethodNode ClassNode",
    "dag.dag_node": "DAGNode",
    "dag.function_node": "FunctionNode",
    "dag.input_node": "DAGInputData InputAttributeNode InputNode",
    "dag.output_node": "MultiOutputNode",
    "exceptions": "ActorDiedError GetTimeoutError ObjectLostError RayActorError RayError RayTaskError WorkerCrashedError",
    "experimental": "get_local_object_locations get_object_locations",
    "experimental.internal_kv": "_internal_kv_del _internal_kv_exists _internal_kv_get _internal_kv_list _internal_kv_put",
    "experimental.queue": "Empty Full Queue",
    "experimental.tqdm_ray": "tqdm safe_print",
    "job_config": "JobConfig",
    "job_submission": "JobDetails JobInfo JobStatus JobSubmissionClient",
    "remote_function": "RemoteFunction",
    "runtime_context": "RuntimeContext get_runtime_context",
    "runtime_env": "RuntimeEnv RuntimeEnvConfig",
    "types": "ObjectRef",
    "util": "ActorPool as_completed inspect_serializability list_named_actors log_once map_unordered placement_group "
    "placement_group_table get_placement_group get_current_placement_group remove_placement_group get_node_ip_address "
    "register_serializer deregister_serializer disable_log_once_globally enable_periodic_logging",
    "util.accelerators": "NVIDIA_A100 NVIDIA_TESLA_T4 NVIDIA_TESLA_V100",
    "util.actor_pool": "ActorPool",
    "util.annotations": "Deprecated DeveloperAPI PublicAPI RayDeprecationWarning",
    "util.check_serialize": "inspect_serializability",
    "util.collective": "allgather allreduce barrier broadcast create_collective_group destroy_collective_group "
    "init_collective_group is_group_initialized recv reduce reducescatter send",
    "util.iter": "LocalIterator ParallelIterator ParallelIteratorWorker from_actors from_items from_iterators from_range",
    "util.helpers": "as_completed map_unordered",
    "util.joblib": "register_ray",
    "util.metrics": "Counter Gauge Histogram",
    "util.multiprocessing": "Pool",
    "util.placement_group": "PlacementGroup placement_group remove_placement_group",
    "util.queue": "Empty Full Queue",
    "util.scheduling_strategies": "DoesNotExist Exists In NodeAffinitySchedulingStrategy NodeLabelSchedulingStrategy NotIn "
    "PlacementGroupSchedulingStrategy",
    "util.serialization": "deregister_serializer register_serializer",
    "util.state": "get_actor get_job get_log get_node get_objects get_placement_group get_task get_worker list_actors "
    "list_cluster_events list_jobs list_logs list_nodes list_objects list_placement_groups list_runtime_envs list_tasks "
    "list_workers summarize_actors summarize_objects summarize_tasks",
}


@pytest.mark.parametrize("module", sorted(NAMES))
def test_a_module_that_programs_import_has_its_names(module: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # experimental.queue
        found = importlib.import_module(f"{ray.__name__}.{module}")
    missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert missing == []


@pytest.mark.parametrize("name", ["actor", "cloudpickle", "dag", "exceptions", "experimental", "runtime_context", "types", "util"])
def test_a_module_is_an_attribute_without_being_imported(name: str) -> None:
    assert getattr(ray, name).__name__ == f"{ray.__name__}.{name}"


#: What Ray has and nbray has not.
ABSENT = [
    *("data", "train", "tune", "serve", "rllib", "workflow", "autoscaler", "autoscaler.sdk", "cluster_utils"),
    *("experimental.channel", "experimental.collective", "experimental.rdt", "util.spark", "util.tpu", "util.tracing"),
    *("util.actor_group", "util.debugpy", "util.client", "dag.compiled_dag_node"),
]


@pytest.mark.differs("absent-modules")
@pytest.mark.parametrize("name", ABSENT)
def test_a_module_that_is_absent_says_what_it_is_and_what_works(name: str) -> None:
    said = rf"is not built \(Ray has it: .+\)\. What works here: .+\."
    with pytest.raises(ImportError, match=said):
        importlib.import_module(f"{ray.__name__}.{name}")
    package, _, last = f"{ray.__name__}.{name}".rpartition(".")
    with pytest.raises(ImportError, match=said):
        exec(f"from {package} import {last}")  # noqa: S102 -- the statement itself is what is looked at


@pytest.mark.differs("absent-modules")
@pytest.mark.parametrize(
    "name", ["tune", "autoscaler", "util.ActorGroup", "util.connect", "util.iter_metrics", "experimental.set_resource", "dag.plot", "util.dask.RayDaskCallback"]
)
def test_an_attribute_that_is_absent_is_missing_and_says_what_works(name: str) -> None:
    package, _, last = f"{ray.__name__}.{name}".rpartition(".")
    module = importlib.import_module(package)
    assert not hasattr(module, last)
    with pytest.raises(NotImplementedError, match="What works here: "):
        getattr(module, last)


def test_names_that_nobody_has_are_plain_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_thing'"):
        ray.no_such_thing  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'no_such_thing'"):
        ray.util.no_such_thing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(f"{ray.__name__}.no_such_thing")


def test_marks_on_public_names_leave_them_as_they_are() -> None:
    marks = importlib.import_module(f"{ray.__name__}.util.annotations")

    @marks.PublicAPI(stability="beta")
    def public() -> int:
        """Says one."""
        return 1

    @marks.DeveloperAPI
    class ForDevelopers:
        """A class."""

    @marks.Deprecated(message="Use public().", warning=True)
    def old() -> int:
        return 2

    assert public() == 1
    assert "Says one." in (public.__doc__ or "")
    assert "beta" in (public.__doc__ or "")
    assert isinstance(ForDevelopers(), ForDevelopers)
    assert public._annotated_type.value == "PublicAPI"
    with pytest.warns(marks.RayDeprecationWarning, match=r"Use public\(\)"):
        assert old() == 2
