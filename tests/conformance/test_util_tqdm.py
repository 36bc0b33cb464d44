"""Progress bars from inside tasks."""

import pytest

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    from ray.experimental.tqdm_ray import tqdm
else:
    from nbray.experimental.tqdm_ray import tqdm

only_nbray = pytest.mark.skipif(ray.__name__ == "ray", reason="about how nbray shows them")


@pytest.fixture
def shown():
    """What the driver was shown of progress: the states, in order."""
    from nbray import session

    states = []
    engine = session.current()
    original = engine._on_output

    def take(event):
        if "nbray_progress" in event.transient:
            states.append(event.transient["nbray_progress"])
        original(event)

    engine.on_output(take)
    yield states
    engine.on_output(original)


def test_a_bar_gives_what_it_is_given_and_counts_it():
    @ray.remote
    def work():
        seen = list(tqdm(range(5), desc="inside"))
        bar = tqdm(total=10, unit="rows")
        bar.update(4)
        bar.update()
        bar.set_description("renamed")
        bar.refresh()
        bar.close()
        return seen, bar.n, bar.total

    assert ray.get(work.remote()) == ([0, 1, 2, 3, 4], 5, 10)
    assert list(tqdm(iter("ab"))) == ["a", "b"]
    with pytest.raises(ValueError, match="No iterable"):
        list(tqdm(total=3))


@only_nbray
def test_a_bar_says_little_however_often_it_is_updated(shown):
    @ray.remote
    def work():
        for _ in tqdm(range(20_000), desc="many", flush_interval_s=3600):
            pass

    ray.get(work.remote())
    assert [(s["n"], s["closed"]) for s in shown] == [(0, False), (20_000, True)]
    assert shown[0]["who"].startswith("work pid=")


@only_nbray
def test_bars_of_several_tasks_end_as_one_line_each(capfd, shown):
    @ray.remote
    def work(i):
        for _ in tqdm(range(10), desc=f"part {i}"):
            pass
        print(f"done {i}")

    ray.get([work.remote(i) for i in range(4)])
    said = capfd.readouterr().err.splitlines()
    ended = sorted(each.split(") ", 1)[1] for each in said if "10/10" in each)
    assert [each.split(":")[0] for each in ended] == ["part 0", "part 1", "part 2", "part 3"]


@only_nbray
def test_a_bar_of_the_driver_is_shown_too(capfd, shown):
    with tqdm(total=2, desc="here") as bar:
        bar.update(2)
    assert "here: 100%" in capfd.readouterr().err
    assert [s["closed"] for s in shown] == [False, True]
    assert ray.util.tqdm is tqdm
