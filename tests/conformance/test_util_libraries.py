"""Other people's libraries on the cluster: joblib, scikit-learn, Dask."""

import multiprocessing
import os
import time

import dask
import dask.array
import joblib
import numpy as np
import pytest
from dask.diagnostics import ProgressBar
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    pytest.importorskip("pandas", reason="Ray's part for Dask imports Dask's data frames")
    from ray.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync
    from ray.util.joblib import register_ray
else:
    from nbray.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync
    from nbray.util.joblib import register_nbray, register_ray

NBRAY = ray.__name__ == "nbray"
only_nbray = pytest.mark.skipif(not NBRAY, reason="about nbray's own names and ways")


# ------------------------------------------------------------------------------------------ joblib


@pytest.fixture(autouse=True)
def registered():
    register_ray()
    if NBRAY:
        register_nbray()


def where(x):
    return x, os.getpid()


def fails(x):
    if x == 5:
        raise KeyError("five")
    return x


def test_parallel_runs_in_other_processes_and_keeps_the_order():
    with joblib.parallel_backend("ray"):
        found = joblib.Parallel(n_jobs=-1)(joblib.delayed(where)(x) for x in range(20))
    assert [x for x, _ in found] == list(range(20))
    assert os.getpid() not in {pid for _, pid in found}


def test_an_error_in_a_call_is_raised_as_itself():
    with joblib.parallel_backend("ray"), pytest.raises(KeyError, match="five"):
        joblib.Parallel(n_jobs=2)(joblib.delayed(fails)(x) for x in range(8))


def test_a_grid_search_finds_what_it_finds_without():
    x, y = make_classification(n_samples=200, random_state=0)
    search = GridSearchCV(RandomForestClassifier(n_estimators=5, random_state=0), {"max_depth": [1, 4], "max_features": [2, 6]}, cv=2, n_jobs=-1)
    alone = GridSearchCV(search.estimator, search.param_grid, cv=2, n_jobs=1).fit(x, y)
    with joblib.parallel_backend("ray"):
        search.fit(x, y)
    assert search.best_params_ == alone.best_params_
    assert np.array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@only_nbray
def test_a_large_array_is_shipped_once():
    from nbray import session

    def address(array, other=None):
        return array.__array_interface__["data"][0], array.flags.writeable

    array = np.zeros(10**6)
    puts = []
    engine = session.current()
    original, engine.put = engine.put, lambda value: (puts.append(value), original(value))[1]
    try:
        with joblib.parallel_backend("nbray"):
            found = joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(address)(array, other=array) for _ in range(6))
    finally:
        del engine.put
    assert len(puts) == 1
    assert puts[0] is array
    assert not any(writeable for _, writeable in found)


@only_nbray
def test_results_come_as_a_generator_and_patience_ends():
    with joblib.parallel_backend("nbray"):
        assert list(joblib.Parallel(n_jobs=2, return_as="generator")(joblib.delayed(pow)(2, x) for x in range(5))) == [1, 2, 4, 8, 16]
        with pytest.raises(multiprocessing.TimeoutError):
            joblib.Parallel(n_jobs=2, timeout=0.1)(joblib.delayed(time.sleep)(x) for x in (60, 60))
    assert joblib.Parallel(n_jobs=2, backend="nbray")(joblib.delayed(pow)(2, x) for x in range(3)) == [1, 2, 4]


@only_nbray
def test_jobs_are_counted_and_inside_a_task_joblib_is_sequential():
    backend = joblib.parallel.BACKENDS["nbray"]()
    assert [backend.effective_n_jobs(n) for n in (1, 2, 7, -1, -2, -9)] == [1, 2, 7, 2, 1, 1]
    with pytest.raises(ValueError):
        backend.effective_n_jobs(0)

    def inner():
        return {pid for _, pid in joblib.Parallel(n_jobs=2)(joblib.delayed(where)(x) for x in range(4))} == {os.getpid()}

    with joblib.parallel_backend("nbray"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(inner)() for _ in range(2)) == [True, True]


# ------------------------------------------------------------------------------------------ Dask


@dask.delayed
def double(x):
    return 2 * x


@dask.delayed
def total(parts):
    return sum(parts)


def test_delayed_functions_run_as_tasks():
    assert dask.compute(total([double(i) for i in range(10)]), scheduler=ray_dask_get) == (90,)
    assert total([double(1), 5]).compute(scheduler=ray_dask_get) == 7
    assert dask.delayed(os.getpid)().compute(scheduler=ray_dask_get) != os.getpid()
    assert dask.compute(double(1), [double(2), {"a": double(3)}], scheduler=ray_dask_get) == (2, [4, {"a": 6}])


def test_arrays_are_computed():
    x = dask.array.arange(1000, chunks=100).reshape(20, 50)
    expected = np.arange(1000).reshape(20, 50)
    assert (x.T @ x).sum().compute(scheduler=ray_dask_get) == (expected.T @ expected).sum()
    assert np.array_equal((x + 1)[::3].compute(scheduler=ray_dask_get), (expected + 1)[::3])
    big = np.arange(200_000.0)
    assert dask.array.from_array(big, chunks=50_000).sum().compute(scheduler=ray_dask_get) == big.sum()


@pytest.mark.parametrize(
    "get", [ray_dask_get, pytest.param(ray_dask_get_sync, marks=pytest.mark.differs("raw-graphs-in-this-thread"))]
)
def test_a_raw_graph_of_older_dask_is_taken(get):
    graph = {"a": 1, "b": (lambda x: x + 1, "a"), "c": (sum, ["a", "b"]), "unused": (lambda: 1 / 0,)}
    assert get(graph, "c") == 3
    assert tuple(get(graph, ["b", "c"])) == (2, 3)


def test_a_failing_node_raises_as_itself():
    @dask.delayed
    def fails(x):
        raise KeyError("node")

    with pytest.raises(KeyError, match="node"):
        double(fails(1)).compute(scheduler=ray_dask_get)


def test_the_scheduler_is_switched_on_and_off():
    pid = dask.delayed(os.getpid)
    with enable_dask_on_ray():
        assert pid().compute() != os.getpid()
    assert pid().compute(scheduler="sync") == os.getpid()
    enable_dask_on_ray()
    assert pid().compute() != os.getpid()
    disable_dask_on_ray()
    assert pid().compute() == os.getpid()


def test_options_reach_the_tasks():
    @dask.delayed
    def held():
        return ray.get_runtime_context().get_assigned_resources().get("CPU")

    assert held().compute(scheduler=ray_dask_get, ray_remote_args={"num_cpus": 2}) == 2
    with dask.annotate(ray_remote_args={"num_cpus": 2}):
        annotated = held()
    assert annotated.compute(scheduler=ray_dask_get, optimize_graph=False) == 2
    with pytest.raises(ValueError, match="ray_remote_args"):
        held().compute(scheduler=ray_dask_get, resources={"CPU": 1})


@only_nbray
def test_a_persisted_collection_holds_references_and_computes_further():
    from nbray.util.dask import ray_dask_persist

    x = dask.array.ones((400, 400), chunks=200) * 3
    (kept,) = ray_dask_persist(x)
    assert all(isinstance(value, ray.ObjectRef) for value in (getattr(n, "value", n) for n in dict(kept.__dask_graph__()).values()))
    assert (kept + 1).sum().compute(scheduler=ray_dask_get) == 400 * 400 * 4


@only_nbray
def test_dasks_progress_bar_sees_every_node(capsys):
    with ProgressBar(minimum=0):
        assert total([double(i) for i in range(4)]).compute(scheduler=ray_dask_get) == 12
    assert "100% Completed" in capsys.readouterr().out
