"""Where the calling code runs: in which job, on which node, in which task or actor."""

from __future__ import annotations

import json
import warnings
from typing import Any

from nbray import connection
from nbray.actors import ActorHandle
from nbray.engines.port import Engine, RuntimeFacts
from nbray.identifiers import ActorID, JobID, NodeID, TaskID
from nbray.runtime_env import RuntimeEnv
from nbray.sched.resources import to_floats
from nbray.wire.environment import public


class RuntimeContext:
    """Answers about the calling thread, asked anew each time. Ids are hex strings; None where there is none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _facts(self) -> RuntimeFacts:
        return self._engine.facts()

    def get(self) -> dict[str, Any]:
        """All of it in one dict: job_id, node_id, namespace, and task_id and actor_id where there are any, as objects."""
        warnings.warn("Use get_xxx_id() methods to get relevant ids instead", DeprecationWarning, stacklevel=2)
        facts = self._facts()
        known = {"job_id": JobID(facts.job), "node_id": NodeID(facts.node), "namespace": facts.namespace}
        return known | {k: v for k, v in (("task_id", self._task_id()), ("actor_id", self._actor_id())) if v is not None}

    def get_job_id(self) -> str:
        return self._facts().job.hex()

    def get_node_id(self) -> str:
        return self._facts().node.hex()

    def get_worker_id(self) -> str:
        return self._facts().process.hex()

    def get_task_id(self) -> str | None:
        task = self._facts().task
        return None if task is None else task.hex()

    def get_task_name(self) -> str | None:
        return self._facts().task_name

    def get_task_function_name(self) -> str | None:
        """The module and qualified name of the function or method that runs, whatever name was given to the task."""
        return self._facts().function_name

    def get_actor_id(self) -> str | None:
        actor = self._facts().actor
        return None if actor is None else actor.hex()

    def get_actor_name(self) -> str | None:
        """The name given to the actor, "" for one without, None outside actors."""
        facts = self._facts()
        return None if facts.actor is None else facts.actor_name or ""

    def get_assigned_resources(self) -> dict[str, float]:
        """What the task or actor holds: {"CPU": 1.0, ...}."""
        return to_floats(self._facts().amounts)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The ids of the devices that the task or actor has, by kind: {"GPU": ["0", "1"]}."""
        return {"GPU": [str(device) for device in self._facts().devices]}

    def get_resource_ids(self) -> dict[str, list[str]]:
        _older("get_resource_ids", "get_accelerator_ids")
        return self.get_accelerator_ids()

    def get_node_labels(self) -> dict[str, str]:
        """The labels of the node that the code runs on."""
        here = self.get_node_id()
        return next((dict(node["Labels"]) for node in self._engine.nodes() if node["NodeID"] == here), {})

    def get_temp_dir(self) -> str:
        """Where this node keeps its sockets, logs and spilled objects."""
        return self._facts().temp_dir

    def get_session_name(self) -> str:
        return self._facts().session

    def get_attempt_number(self) -> int:
        """0 for the first run of the task, 1 for its first retry."""
        return self._facts().attempt

    def get_placement_group_id(self) -> str | None:
        """The placement group that the task or actor runs in; None outside of groups."""
        group = self._facts().group
        return group.hex() if group else None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what is submitted here goes to the same placement group, unless it says otherwise."""
        return self._facts().captures

    @property
    def namespace(self) -> str:
        return self._facts().namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor is a restarted one. Raises RuntimeError outside actors."""
        if self._facts().actor is None:
            raise RuntimeError("this code does not run in an actor")
        return self._facts().restarted

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor that the code runs in; it does not keep the actor alive. Raises RuntimeError outside actors."""
        token = self._engine.self_actor()
        if token is None:
            raise RuntimeError("this code does not run in an actor")
        return ActorHandle(self._engine, token)

    def get_runtime_env_string(self) -> str:
        """The runtime environment of the calling code as JSON."""
        return json.dumps(public(self._engine.environment_here()), sort_keys=True)

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment of the calling code: that of the task or actor, over that of its parents and the job."""
        return RuntimeEnv.deserialize(self.get_runtime_env_string())

    def is_canceled(self) -> bool:
        """Whether somebody cancelled the running task: a threaded or long method can look, and stop.

        Raises RuntimeError in a driver, and in an async actor, where asyncio.CancelledError says it.
        """
        facts = self._facts()
        if facts.in_async_actor:
            raise RuntimeError("This method is not supported in an async actor. A cancelled call gets asyncio.CancelledError.")
        if self._engine.is_driver:
            raise RuntimeError("This method is only available in a task or actor: nobody can cancel a driver")
        return facts.cancelled

    @property
    def gcs_address(self) -> str:
        """The address of the head, "local" where it has none: the cluster of one machine that listens on no port."""
        return next((str(node["Gateway"]) for node in self._engine.nodes() if node["IsHead"] and node["Gateway"]), "local")

    @property
    def job_id(self) -> JobID:
        _older("job_id")
        return JobID(self._facts().job)

    @property
    def node_id(self) -> NodeID:
        _older("node_id")
        return NodeID(self._facts().node)

    @property
    def task_id(self) -> TaskID | None:
        _older("task_id")
        return self._task_id()

    def _task_id(self) -> TaskID | None:
        task = self._facts().task
        return None if task is None else TaskID(task)

    @property
    def actor_id(self) -> ActorID | None:
        _older("actor_id")
        return self._actor_id()

    def _actor_id(self) -> ActorID | None:
        actor = self._facts().actor
        return None if actor is None else ActorID(actor)


def _older(name: str, now: str = "") -> None:
    warnings.warn(f"Use {now or f'get_{name}'}() instead", DeprecationWarning, stacklevel=3)


def get_runtime_context() -> RuntimeContext:
    """The context of the calling code; starts a local cluster if this process has none."""
    return RuntimeContext(connection.engine())
