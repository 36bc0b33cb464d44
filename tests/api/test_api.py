from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nbray
from nbray import connection, pages, session
from nbray.exceptions import GetTimeoutError, RaySystemError, StaleRefError
from nbray.refs import ObjectRef


@nbray.remote
def f(x: Any) -> Any:
    return x


def test_get_keeps_order_and_duplicates(engine: Any) -> None:
    refs = [nbray.put(i) for i in range(10)]
    assert nbray.get(refs) == list(range(10))
    assert nbray.get([refs[3], refs[1], refs[3]]) == [3, 1, 3]
    assert nbray.get([]) == []


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (3, ValueError, "Invalid type of object refs, <class 'int'>"),
        ((1, 2), ValueError, "Invalid type of object refs, <class 'tuple'>"),
        ({}, ValueError, "must either be an ObjectRef or a list of ObjectRefs"),
        ([3], TypeError, "Attempting to call `get` on the value 3"),
        ("ref", ValueError, "Invalid type"),
        (f, ValueError, r"Did you mean to call it\? Try .remote\(\)"),
    ],
)
def test_get_of_something_else_is_a_clear_error(engine: Any, wrong: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        nbray.get(wrong)


def test_get_says_what_to_do_with_collections_of_references(engine: Any) -> None:
    ref = nbray.put(1)
    with pytest.raises(TypeError, match="one flat list"):
        nbray.get([[ref], [ref]])
    with pytest.raises(ValueError, match=r"list\(refs\)"):
        nbray.get((ref, ref))
    with pytest.raises(ValueError, match="Make a list of it"):
        nbray.get(r for r in [ref])

    async def coroutine() -> None: ...

    with pytest.raises(ValueError, match="coroutine: await it"):
        nbray.get(coroutine())


def test_a_value_whose_repr_raises_is_still_named(engine: Any) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeError, match="Hostile whose repr raised RuntimeError"):
        nbray.get([Hostile()])


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError), (dt.timedelta(1), TypeError)],
)
@pytest.mark.parametrize("verb", ["get", "wait"])
def test_a_timeout_is_a_number_of_seconds(engine: Any, verb: str, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout"):
        getattr(nbray, verb)([nbray.put(1)], timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 0.0, float("inf"), 1e20, 10**400])
def test_a_timeout_may_be_nothing_or_for_ever(engine: Any, timeout: float) -> None:
    assert nbray.get(nbray.put(1), timeout=timeout) == 1
    with pytest.raises(GetTimeoutError):
        nbray.get(engine.pending(), timeout=0)


def test_put_of_a_reference_and_of_an_owner_are_refused(engine: Any) -> None:
    ref = nbray.put(1)
    with pytest.raises(TypeError, match=r"Calling 'put' on an nbray\.ObjectRef is not allowed"):
        nbray.put(ref)
    assert nbray.get(nbray.put([ref])) == [ref]
    with pytest.raises(ValueError, match="_owner"):
        nbray.put(1, _owner=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'owner'"):
        nbray.put(1, owner=None)


def test_wait_returns_two_lists_in_order(engine: Any) -> None:
    done, never = [nbray.put(i) for i in range(3)], engine.pending()
    assert nbray.wait([never, *done], num_returns=2, timeout=0) == (done[:2], [never, done[2]])
    assert nbray.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("refs", "options", "error", "said"),
    [
        ("one", {}, TypeError, "got a single nbray.ObjectRef"),
        ("tuple", {}, TypeError, "expected a list of nbray.ObjectRef, got <class 'tuple'>"),
        ("mixed", {}, TypeError, "got list containing <class 'int'>"),
        ("twice", {}, ValueError, "unique object refs"),
        ("list", {"num_returns": 0}, ValueError, "Invalid number of objects to return 0"),
        ("list", {"num_returns": -1}, ValueError, "Invalid number of objects to return -1"),
        ("list", {"num_returns": 3}, ValueError, "num_returns cannot be greater than the number of objects"),
        ("list", {"num_returns": 1.0}, TypeError, "num_returns"),
        ("list", {"timeout": -0.5}, ValueError, "must be nonnegative"),
    ],
)
def test_wait_checks_its_arguments(engine: Any, refs: str, options: dict[str, Any], error: type[Exception], said: str) -> None:
    ref = nbray.put(1)
    given = {"one": ref, "tuple": (ref,), "mixed": [ref, 3], "twice": [ref, ref], "list": [ref, nbray.put(2)]}[refs]
    with pytest.raises(error, match=said):
        nbray.wait(given, **options)


def test_a_wait_of_milliseconds_is_warned_about_and_stays_seconds(engine: Any) -> None:
    with pytest.warns(DeprecationWarning, match=r"waits 2500 seconds.*timeout=2.5 today"):
        nbray.wait([nbray.put(1)], timeout=2500)


def test_cancel_takes_references_only(engine: Any) -> None:
    ref = f.remote(1)
    nbray.cancel(ref, force=True, recursive=False)
    assert engine.cancelled == [(ref.binary(), True, False)]
    with pytest.raises(TypeError, match=r"only supported for object refs.* Got: <class 'int'>"):
        nbray.cancel(3)


def test_references_of_another_session_say_so(engine: Any) -> None:
    stale = ObjectRef(b"\1" * 20, (b"", b""), None)  # type: ignore[arg-type]
    for use in (lambda: nbray.get(stale), lambda: nbray.get([stale]), lambda: nbray.wait([stale]), lambda: nbray.cancel(stale)):
        with pytest.raises(StaleRefError, match="session that has ended"):
            use()
    with pytest.raises(StaleRefError):
        nbray.get(ObjectRef.nil())


def test_resources_are_summed_over_living_nodes(engine: Any) -> None:
    assert nbray.cluster_resources() == {"CPU": 2.0}
    assert nbray.available_resources() == {"b": 1.0}
    assert len(nbray.nodes()) == 2
    assert nbray.get_gpu_ids() == []


@pytest.mark.parametrize("verb", ["nodes", "cluster_resources", "available_resources", "timeline"])
def test_questions_about_the_cluster_start_none(verb: str) -> None:
    assert not nbray.is_initialized()
    with pytest.raises(RaySystemError, match=rf"nbray.{verb}\(\) asks a running cluster.*nbray.init"):
        getattr(nbray, verb)()


def test_auto_connect_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    with pytest.raises(RaySystemError, match=r"has not been started yet.*nbray.init\(\)"):
        f.remote(1)


def test_a_forked_child_is_told_that_it_has_no_cluster(engine: Any) -> None:
    ref = nbray.put(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            nbray.get(ref)
        except RaySystemError as error:
            nbray.shutdown()
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as said:
        assert f"process {child} was forked from process {os.getpid()}" in said.read()
    os.waitpid(child, 0)
    assert nbray.get(ref) == 1
    assert not engine.closed


def test_the_runtime_context_answers_in_hex(engine: Any) -> None:
    context = nbray.get_runtime_context()
    assert (context.get_job_id(), context.get_node_id()) == (b"driver00".hex(), b"node0000".hex())
    assert (context.get_task_id(), context.get_actor_id(), context.get_actor_name(), context.namespace) == (
        None,
        None,
        None,
        "space",
    )
    with pytest.warns(DeprecationWarning, match="Use get_xxx_id"):
        told = context.get()
    assert told == {"job_id": nbray.JobID(b"driver00"), "node_id": nbray.NodeID(b"node0000"), "namespace": "space"}
    with pytest.raises(RuntimeError, match="not run in an actor"):
        context.current_actor
    with pytest.warns(DeprecationWarning, match=r"Use get_job_id\(\) instead"):
        assert context.job_id == nbray.JobID(b"driver00")


# ------------------------------------------------------------------------------------------ init


def test_a_second_init_returns_the_running_context_and_says_what_it_ignored(engine: Any) -> None:
    with pytest.warns(UserWarning, match=r"ignored num_cpus=3, namespace='x'"):
        context = nbray.init(num_cpus=3, namespace="x")
    assert context.address_info["address"] == "<script>"
    nbray.init()
    nbray.init(num_cpus=3, ignore_reinit_error=True)


def test_the_context_is_a_mapping_of_old_and_shows_itself_escaped(engine: Any) -> None:
    context = nbray.init()
    with pytest.warns(DeprecationWarning, match="address_info"):
        assert context["address"] == "<script>"
    assert "<script>" not in context._repr_html_()
    assert "&lt;script&gt;" in context._repr_html_()
    assert "the affinity mask" in repr(context)


def test_leaving_the_context_shuts_down_and_again_does_nothing(engine: Any) -> None:
    with nbray.init():
        assert nbray.is_initialized()
    assert engine.closed
    assert not nbray.is_initialized()
    nbray.shutdown()


def test_a_task_that_calls_shutdown_does_not_cut_its_worker_off(engine: Any) -> None:
    engine.is_driver = False
    nbray.shutdown()
    assert not engine.closed
    assert session.engine is engine


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"num_cpu": 2}, TypeError, r"num_cpu for nbray.init\(\). Did you mean num_cpus\?"),
        ({"nonsense": 2}, TypeError, "Invalid option keyword nonsense"),
        ({"namespace": ""}, ValueError, '"" is not a valid namespace'),
        ({"namespace": 3}, TypeError, "namespace must be None or a string"),
        ({"num_cpus": -1}, ValueError, "CPU|num_cpus"),
        ({"num_cpus": "2"}, TypeError, "num_cpus"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_cpus": float("nan")}, ValueError, "num_cpus"),
        ({"resources": {"CPU": 2}}, ValueError, "num_cpus"),
        ({"object_store_memory": 10}, ValueError, "object_store_memory"),
        ({"object_store_memory": float("nan")}, TypeError, "object_store_memory"),
        ({"address": ""}, ValueError, "address is empty"),
        ({"address": 3}, TypeError, "address"),
        ({"address": "host:1", "num_cpus": 2}, ValueError, "When connecting to an existing cluster"),
        ({"runtime_env": {"image_uri": "x"}}, NotImplementedError, "image_uri"),
    ],
)
def test_init_checks_its_options_before_it_starts_anything(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        nbray.init(**options)
    assert not nbray.is_initialized()


def test_older_spellings_of_init_are_told_todays(engine: Any) -> None:
    with pytest.warns(DeprecationWarning, match="include_webui does nothing"):
        nbray.init(include_webui=True)
    with (
        pytest.warns(DeprecationWarning, match="redis_address is called address today"),
        pytest.raises(RaySystemError, match=r"attached to '<script>' already, so it was not attached to '12.345.67.89:6379'"),
    ):
        nbray.init(redis_address="12.345.67.89:6379")


def test_options_of_ray_that_have_no_effect_say_why(engine: Any) -> None:
    nbray.init(configure_logging=True, _enable_object_reconstruction=True)
    with pytest.warns(UserWarning, match=r"system_reserved_cpu=1.0\) has no effect: give fewer CPUs"):
        nbray.init(system_reserved_cpu=1.0)


def test_a_page_of_a_cluster_that_runs_already_is_not_served_by_who_attaches(engine: Any) -> None:
    with pytest.warns(UserWarning, match=r"has no effect for a cluster that runs already .* `nbray dashboard` serves its page"):
        context = nbray.init(include_dashboard=True)
    assert context.dashboard_url == ""
    nbray.init(include_dashboard=False, dashboard_host="0.0.0.0", dashboard_port=None)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dashboard_port": "8265"}, TypeError),
        ({"dashboard_port": True}, TypeError),
        ({"dashboard_port": 70_000}, ValueError),
        ({"dashboard_host": 7}, TypeError),
    ],
)
def test_what_cannot_be_the_place_of_a_page_is_refused(engine: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="dashboard_"):
        nbray.init(**options)


def test_a_page_for_other_machines_is_not_served_by_init(engine: Any) -> None:
    with pytest.warns(UserWarning, match=r"dashboard_host='0.0.0.0'\) serves the page on 127.0.0.1 only.*--listen-all"):
        settings = pages.asked(None, "0.0.0.0", None)
    assert settings is not None
    assert settings.host == "127.0.0.1"


def test_the_address_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection._address(None) == (None, "NBRAY_ADDRESS")
    monkeypatch.setenv("RAY_ADDRESS", "host:1")
    assert connection._address(None) == ("host:1", "NBRAY_ADDRESS=host:1")
    monkeypatch.setenv("NBRAY_ADDRESS", "host:2")
    assert connection._address(None)[0] == "host:2"
    assert connection._address("local")[0] == "local"
    assert connection._address("auto")[0] == "host:2"  # as in Ray: the script of a submitted job may say so, too
    monkeypatch.delenv("NBRAY_ADDRESS")
    monkeypatch.delenv("RAY_ADDRESS")
    assert connection._address("auto") == ("auto", "address=auto")


# ------------------------------------------------------------------------------------------ the package


def test_importing_the_package_imports_nothing_that_a_daemon_does_without() -> None:
    program = "import sys, nbray; print([m for m in ('IPython', 'numpy', 'asyncio', 'zmq', 'cloudpickle') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_using_the_api_imports_neither_ipython_nor_numpy() -> None:
    program = (
        "import sys, nbray; nbray.remote, nbray.init, nbray.exceptions; print('IPython' in sys.modules, 'numpy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False False"


@pytest.mark.parametrize("name", nbray.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(nbray, name) is not None
    assert name in dir(nbray)


@pytest.mark.parametrize("name", ["data", "train", "tune", "serve", "rllib", "workflow"])
def test_what_ray_has_and_nbray_has_not_names_what_works(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"nbray.{name} is not built .Ray has it: .*. What works here: \w+"):
        getattr(nbray, name)
    assert not hasattr(nbray, name)


@pytest.mark.parametrize("library", ["data", "train", "tune", "serve", "rllib", "workflow"])
def test_importing_a_library_of_its_own_says_that_it_is_one(library: str) -> None:
    for statement in (f"from nbray import {library}", f"import nbray.{library}", f"from nbray.{library} import anything"):
        with pytest.raises(ImportError, match=rf"nbray.{library} is not built .* not part of nbray.. What works here: \w+"):
            exec(statement)
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from nbray import nonsense")


def test_old_names_are_there() -> None:
    assert nbray.ObjectID is nbray.ObjectRef
    assert nbray.types.ObjectRef is nbray.ObjectRef
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nbray.nonsense


def test_the_timeline_is_chrome_trace_events(engine: Any, tmp_path: Path) -> None:
    record = {"kind": "task", "id": "aa", "name": "f", "state": "FAILED", "cell": "", "node": "bb", "worker": "cc", "attempt": 0}
    record |= {"submitted_ns": 1_000, "started_ns": 2_000, "ended_ns": 5_000, "fetch_ns": 0, "detail": "ValueError: 1"}
    engine.trace = lambda: [record]
    event = next(e for e in nbray.timeline() if e["ph"] == "X")
    assert (event["name"], event["ts"], event["dur"]) == ("f", 2.0, 3.0)
    assert nbray.timeline(str(tmp_path / "t.json")) is None
    assert json.loads((tmp_path / "t.json").read_text())[-1] == event
    with pytest.warns(DeprecationWarning, match="error_info"):
        assert nbray.error_info() == [{"type": "task", "message": "ValueError: 1", "task": "aa", "name": "f"}]


@pytest.mark.parametrize(
    ("script", "session_name", "called"),
    [
        ("/lib/ipykernel_launcher.py", "/home/me/analysis.ipynb", "analysis.ipynb"),
        ("/lib/ipykernel_launcher.py", "", "ipykernel_launcher.py"),
        ("/home/me/train.py", "/home/me/analysis.ipynb", "train.py"),
        ("", "", "python"),
    ],
)
def test_a_job_goes_by_its_notebook_or_its_script(
    monkeypatch: pytest.MonkeyPatch, script: str, session_name: str, called: str
) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setenv("JPY_SESSION_NAME", session_name)
    assert connection._program() == called
