"""Numbers that programs report about themselves, and where they are read."""

import os
import pickle
import re
import subprocess
import sys
import time

import pytest

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    from ray.util.metrics import Counter, Gauge, Histogram
else:
    from nbray.util.metrics import Counter, Gauge, Histogram

only_nbray = pytest.mark.skipif(ray.__name__ == "ray", reason="Ray has an agent that is scraped instead")


def samples():
    """Every sample: {'name{labels}': value}."""
    from nbray.util.metrics import prometheus_text

    found = {}
    for line in prometheus_text().splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) nbray_\w+ .*|nbray_\w+(\{(\w+="([^"\\]|\\.)*",?)*\})? -?[0-9.e+-]+', line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def until(condition):
    """The samples when `condition` holds of them; bounded by the test's own time limit."""
    while not condition(found := samples()):
        time.sleep(0.1)
    return found


def test_info_says_what_was_declared():
    counter = Counter("declared", description="d", tag_keys=("a", "b"))
    assert counter.set_default_tags({"a": "1"}) is counter
    assert counter.info == {"name": "declared", "description": "d", "tag_keys": ("a", "b"), "default_tags": {"a": "1"}}
    histogram = Histogram("declared_histogram", boundaries=[1.0, 2.0])
    assert histogram.info == {"name": "declared_histogram", "description": "", "tag_keys": (), "default_tags": {}, "boundaries": [1.0, 2.0]}


def test_what_cannot_be_is_refused():
    counter = Counter("refusing", tag_keys=("a",))
    for call, error in (
        (lambda: Counter(""), ValueError),
        (lambda: Counter("x", tag_keys="a"), TypeError),
        (lambda: Counter("x", tag_keys=(1,)), TypeError),
        (lambda: counter.set_default_tags({"b": "1"}), ValueError),
        (lambda: counter.set_default_tags({"a": 1}), TypeError),
        (lambda: counter.inc("1", tags={"a": "1"}), TypeError),
        (lambda: counter.inc(0, tags={"a": "1"}), ValueError),
        (lambda: counter.inc(-1, tags={"a": "1"}), ValueError),
        (lambda: counter.inc(), ValueError),
        (lambda: counter.inc(tags={"a": 1}), TypeError),
        (lambda: Gauge("refusing_gauge").set("1"), TypeError),
        (lambda: Histogram("h"), ValueError),
        (lambda: Histogram("h", boundaries=[]), ValueError),
        (lambda: Histogram("h", boundaries=[0, 1]), ValueError),
        (lambda: Histogram("h", boundaries=[1]).observe("1"), TypeError),
    ):
        with pytest.raises(error):
            call()
    with pytest.warns(UserWarning, match="Invalid metric name"):
        discarded = Counter("not-a-name")
    discarded.inc()
    Gauge("refusing_gauge").set(None)


def test_metrics_are_passed_to_tasks():
    counter = pickle.loads(pickle.dumps(Counter("travels", tag_keys=("a",))))
    assert counter.info["tag_keys"] == ("a",)
    counter.inc(tags={"a": "1"})


@only_nbray
def test_counters_of_all_processes_are_one_sum():
    counter = Counter("jobs", description='of "all"\nkinds', tag_keys=("kind",)).set_default_tags({"kind": "plain"})

    @ray.remote
    def work():
        counter.inc()
        counter.inc(2, tags={"kind": 'odd "one"\n'})

    ray.get([work.remote() for _ in range(5)])
    counter.inc(0.5)
    found = until(lambda s: s.get('nbray_jobs_total{kind="plain"}') == 5.5)
    assert [v for name, v in found.items() if name.startswith('nbray_jobs_total{kind="odd')] == [10]


@only_nbray
def test_gauges_are_of_their_process_and_go_with_it():
    gauge = Gauge("level")

    @ray.remote
    class Holder:
        def set(self, value):
            gauge.set(value)
            return ray.get_runtime_context().get_worker_id()

    def levels(s):
        return {re.search('WorkerId="([0-9a-f]+)"', name).group(1): value for name, value in s.items() if name.startswith("nbray_level{")}

    a, b = Holder.remote(), Holder.remote()
    whose = ray.get([a.set.remote(1), b.set.remote(7)])
    ray.get(a.set.remote(2))
    until(lambda s: levels(s) == {whose[0]: 2, whose[1]: 7})
    ray.kill(a)
    until(lambda s: levels(s) == {whose[1]: 7})


@only_nbray
def test_histograms_are_cumulative():
    histogram = Histogram("took_s", boundaries=[1, 10], tag_keys=("a",))
    for value in (0.5, 1, 3, 30):
        histogram.observe(value, tags={"a": "x"})
    found = samples()
    assert [found[f'nbray_took_s_bucket{{a="x",le="{le}"}}'] for le in ("1.0", "10.0", "+Inf")] == [2, 3, 4]
    assert (found['nbray_took_s_sum{a="x"}'], found['nbray_took_s_count{a="x"}']) == (34.5, 4)


@only_nbray
def test_the_clusters_own_figures_are_there():
    @ray.remote
    def done():
        return 1

    ray.get([done.remote() for _ in range(3)])
    found = samples()
    assert found['nbray_nodes{State="ALIVE"}'] == 1
    assert found['nbray_tasks{State="FINISHED"}'] >= 3
    (cpus,) = [v for name, v in found.items() if name.startswith("nbray_resources{") and 'Name="CPU"' in name and "AVAILABLE" in name]
    assert cpus <= 2
    assert any(name.startswith("nbray_object_store_bytes{") for name in found)


@only_nbray
def test_a_process_that_ends_in_order_reports_what_it_has():
    counter = Counter("farewells")

    @ray.remote
    class Leaves:
        def leave(self):
            counter.inc(4)
            ray.actor.exit_actor()

    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(Leaves.remote().leave.remote())
    until(lambda s: s.get("nbray_farewells_total") == 4)


@only_nbray
def test_the_command_prints_the_same():
    Counter("for_the_command").inc(3)
    samples()  # reports
    ran = subprocess.run([sys.executable, "-m", "nbray", "metrics"], capture_output=True, text=True, env=os.environ, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "nbray_for_the_command_total 3\n" in ran.stdout
