"""Small whole programs in the forms that Ray's users know: patterns, anti-patterns that still have to work, and applications."""

import asyncio
import collections
import importlib
import os
import random
import time

import numpy as np
import pytest

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 4}


# ------------------------------------------------------------------------------------------ tips for first-time users


def test_values_are_asked_for_after_everything_was_submitted():
    @ray.remote
    def work(n):
        return n * n

    assert ray.get([work.remote(n) for n in range(8)]) == [n * n for n in range(8)]
    assert [ray.get(work.remote(n)) for n in range(3)] == [0, 1, 4]


def test_small_tasks_are_batched():
    def tiny(n):
        return n + 1

    @ray.remote
    def batch(start, end):
        return [tiny(n) for n in range(start, end)]

    results = ray.get([batch.remote(start, start + 250) for start in range(0, 1000, 250)])
    assert sum(results, []) == list(range(1, 1001))


def test_a_large_argument_is_put_once():
    @ray.remote
    def touch(array, n):
        return array[n]

    ref = ray.put(np.arange(300_000))
    assert ray.get([touch.remote(ref, n) for n in range(10)]) == list(range(10))


def test_results_are_processed_as_they_come():
    @ray.remote
    def step(n):
        time.sleep(random.uniform(0, 0.02))
        return n

    left, total = [step.remote(n) for n in range(12)], 0
    while left:
        done, left = ray.wait(left)
        total += ray.get(done[0])
    assert total == sum(range(12))


# ------------------------------------------------------------------------------------------ patterns


def test_tree_reduction_by_pairs():
    @ray.remote
    def add(a, b):
        return a + b

    values = [ray.put(np.full(10, n)) for n in range(9)]
    while len(values) > 1:
        values = [add.remote(*values[:2]), *values[2:]][::-1]
    assert ray.get(values[0]).tolist() == [36] * 10


def test_nested_tasks_sort_in_parallel():
    @ray.remote
    def sort(values, least):
        if len(values) <= least:
            return sorted(values)
        pivot, rest = values[0], values[1:]
        small = sort.remote([v for v in rest if v < pivot], least)
        large = sort.remote([v for v in rest if v >= pivot], least)
        return [*ray.get(small), pivot, *ray.get(large)]

    values = random.Random(7).sample(range(10_000), 400)
    assert ray.get(sort.remote(values, 100), timeout=90) == sorted(values)


def test_a_tree_of_actors():
    @ray.remote(num_cpus=0.5)
    class Trainer:
        def __init__(self, rate):
            self.rate = rate

        def fit(self):
            return {"rate": self.rate, "loss": (self.rate - 3) ** 2}

    @ray.remote(num_cpus=0.5)
    class Supervisor:
        def __init__(self, rates):
            self.trainers = [Trainer.remote(rate) for rate in rates]

        def fit(self):
            return min(ray.get([trainer.fit.remote() for trainer in self.trainers]), key=lambda result: result["loss"])

    supervisors = [Supervisor.remote(rates) for rates in ([1, 2], [3, 5])]
    assert [best["rate"] for best in ray.get([s.fit.remote() for s in supervisors], timeout=60)] == [2, 3]


def test_pipelining_fetches_the_next_while_it_works_on_this():
    @ray.remote
    class Queue:
        def __init__(self):
            self.items = collections.deque(range(10))

        def next(self):
            return self.items.popleft() if self.items else None

    @ray.remote
    class Worker:
        def __init__(self, queue):
            self.queue = queue

        def run(self):
            results, coming = [], self.queue.next.remote()
            while True:
                item = ray.get(coming)
                if item is None:
                    return results
                coming = self.queue.next.remote()
                results.append(item * 10)

    queue = Queue.remote()
    got = ray.get([Worker.remote(queue).run.remote() for _ in range(2)], timeout=60)
    assert sorted(got[0] + got[1]) == [n * 10 for n in range(10)]


def test_the_number_of_pending_tasks_is_limited_with_wait():
    @ray.remote
    def work(n):
        return n

    pending, results, most = [], [], 0
    for n in range(50):
        if len(pending) >= 8:
            done, pending = ray.wait(pending, num_returns=1)
            results += ray.get(done)
        pending.append(work.remote(n))
        most = max(most, len(pending))
    results += ray.get(pending)
    assert sorted(results) == list(range(50))
    assert most == 8


def test_the_number_of_tasks_at_once_is_limited_with_resources(tmp_path):
    @ray.remote(num_cpus=2)
    def heavy(n):
        mine = tmp_path / str(n)
        mine.touch()
        running = len(list(tmp_path.iterdir()))
        time.sleep(0.02)
        mine.unlink()
        return running

    assert max(ray.get([heavy.remote(n) for n in range(6)])) <= 2


def test_tasks_of_a_group_are_returned_as_references_and_got_later():
    @ray.remote
    def child(n):
        return n

    @ray.remote
    def parent():
        return [child.remote(n) for n in range(4)]

    assert ray.get(ray.get(parent.remote())) == [0, 1, 2, 3]


def test_the_same_big_thing_is_captured_by_reference():
    big = ray.put(np.ones(300_000))

    @ray.remote
    def total(n):
        return ray.get(big).sum() + n

    assert ray.get([total.remote(n) for n in range(3)]) == [300_000, 300_001, 300_002]


def test_an_actor_synchronises_others():
    @ray.remote(num_cpus=0)
    class Signal:
        def __init__(self):
            self.event = asyncio.Event()

        async def send(self):
            self.event.set()

        async def wait(self):
            await self.event.wait()

    @ray.remote
    def after(signal, n):
        ray.get(signal.wait.remote())
        return n

    signal = Signal.remote()
    refs = [after.remote(signal, n) for n in range(3)]
    assert ray.wait(refs, timeout=0.2)[0] == []
    ray.get(signal.send.remote())
    assert ray.get(refs, timeout=60) == [0, 1, 2]


def test_a_named_singleton_is_shared_by_tasks_that_were_given_nothing():
    @ray.remote
    class Config:
        def __init__(self):
            self.values = {}

        def set(self, key, value):
            self.values[key] = value

        def get(self, key):
            return self.values[key]

    config = Config.options(name="the-configuration").remote()
    ray.get(config.set.remote("rate", 0.5))

    @ray.remote
    def train():
        return ray.get(ray.get_actor("the-configuration").get.remote("rate"))

    assert ray.get([train.remote() for _ in range(3)]) == [0.5] * 3


# ------------------------------------------------------------------------------------------ applications


def test_map_and_reduce_count_words():
    corpus = ["the zen of python", "beautiful is better than ugly", "explicit is better than implicit", "simple is better than complex"]

    @ray.remote
    def map_part(lines, parts):
        counts = [collections.Counter() for _ in range(parts)]
        for word in " ".join(lines).split():
            counts[ord(word[0]) % parts][word] += 1
        return counts

    @ray.remote
    def reduce_part(*counts):
        return sum(counts, collections.Counter())

    mapped = [map_part.options(num_returns=3).remote(corpus[n::2], 3) for n in range(2)]
    reduced = [reduce_part.remote(*(outputs[part] for outputs in mapped)) for part in range(3)]
    assert sum(ray.get(reduced), collections.Counter()) == collections.Counter(" ".join(corpus).split())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_parameter_server_learns(asynchronous):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    truth = np.arange(5.0)
    y = x @ truth

    @ray.remote
    class ParameterServer:
        def __init__(self, rate):
            self.weights, self.rate = np.zeros(5), rate

        def apply(self, *gradients):
            self.weights = self.weights - self.rate * np.mean(gradients, axis=0)
            return self.weights

        def get(self):
            return self.weights

    @ray.remote
    class Worker:
        def __init__(self, x, y):
            self.x, self.y = x, y

        def gradient(self, weights):
            return 2 * self.x.T @ (self.x @ weights - self.y) / len(self.y)

    server = ParameterServer.remote(0.1)
    workers = [Worker.remote(x[n::2], y[n::2]) for n in range(2)]
    weights = server.get.remote()
    if asynchronous:
        waiting = {worker.gradient.remote(weights): worker for worker in workers}
        for _ in range(120):
            [ready], _ = ray.wait(list(waiting))
            worker = waiting.pop(ready)
            waiting[worker.gradient.remote(server.apply.remote(ready))] = worker
    else:
        for _ in range(60):
            weights = server.apply.remote(*[worker.gradient.remote(weights) for worker in workers])
    assert np.allclose(ray.get(server.get.remote(), timeout=60), truth, atol=0.1)


def test_pi_with_a_progress_actor_asked_while_tasks_run():
    @ray.remote
    class Progress:
        def __init__(self, total):
            self.total, self.done = total, {}

        def report(self, task, done):
            self.done[task] = done

        def share(self):
            return sum(self.done.values()) / self.total

    @ray.remote
    def sample(count, task, progress):
        rng, inside = random.Random(task), 0
        for n in range(count):
            inside += rng.random() ** 2 + rng.random() ** 2 <= 1
            if (n + 1) % 1000 == 0:
                progress.report.remote(task, n + 1)
        return inside

    progress = Progress.remote(12_000)
    refs = [sample.remote(4_000, task, progress) for task in range(3)]
    shares = []
    while not shares or shares[-1] < 1:
        shares.append(ray.get(progress.share.remote()))
    assert shares == sorted(shares)
    assert abs(4 * sum(ray.get(refs)) / 12_000 - np.pi) < 0.1


def test_batch_prediction_with_a_pool_of_actors():
    @ray.remote
    class Predictor:
        def __init__(self, model):
            self.model = model

        def predict(self, batch):
            return self.model["slope"] * batch + self.model["offset"]

    model = ray.put({"slope": 2.0, "offset": 1.0})
    predictors = [Predictor.remote(model) for _ in range(2)]
    idle, running, results = list(predictors), {}, {}
    batches = [np.arange(10.0) + n for n in range(6)]
    for n, batch in enumerate(batches):
        if not idle:
            [ref], _ = ray.wait(list(running))
            actor, which = running.pop(ref)
            results[which] = ray.get(ref)
            idle.append(actor)
        actor = idle.pop()
        running[actor.predict.remote(batch)] = (actor, n)
    for ref, (_, n) in running.items():
        results[n] = ray.get(ref)
    assert all(np.array_equal(results[n], 2 * batch + 1) for n, batch in enumerate(batches))


def test_a_crawler_follows_links_from_a_queue():
    site = {"/": ["/a", "/b"], "/a": ["/b", "/c"], "/b": ["/"], "/c": []}

    @ray.remote
    def fetch(page):
        return page, site[page]

    seen, running = {"/"}, [fetch.remote("/")]
    while running:
        [done], running = ray.wait(running)
        _, links = ray.get(done)
        for link in links:
            if link not in seen:
                seen.add(link)
                running.append(fetch.remote(link))
    assert seen == set(site)


def test_a_queue_connects_a_crawlers_workers():
    from_queue = importlib.import_module(f"{ray.__name__}.util.queue").Queue()

    @ray.remote
    def produce(queue, n):
        for k in range(5):
            queue.put(n * 5 + k)
        return n

    @ray.remote
    def consume(queue, count):
        return [queue.get(timeout=30) for _ in range(count)]

    consumers = [consume.remote(from_queue, 5) for _ in range(2)]
    ray.get([produce.remote(from_queue, n) for n in range(2)])
    assert sorted(sum(ray.get(consumers, timeout=60), [])) == list(range(10))


def test_a_generator_is_a_pipeline():
    @ray.remote
    def blocks(count):
        for n in range(count):
            yield np.full(50_000, n)

    @ray.remote
    def total(block):
        return int(block.sum())

    assert [ray.get(total.remote(ref)) for ref in blocks.remote(4)] == [0, 50_000, 100_000, 150_000]


def test_a_flaky_task_is_retried_by_the_program(tmp_path):
    @ray.remote(max_retries=0)
    def flaky(n):
        mark = tmp_path / str(n)
        if not mark.exists():
            mark.touch()
            if n % 2:
                os._exit(1)
            raise ValueError(n)
        return n

    results, left = [], {flaky.remote(n): n for n in range(4)}
    while left:
        [ref], _ = ray.wait(list(left))
        n = left.pop(ref)
        try:
            results.append(ray.get(ref))
        except (ValueError, ray.exceptions.WorkerCrashedError):
            left[flaky.remote(n)] = n
    assert sorted(results) == [0, 1, 2, 3]


def test_an_actor_that_remembers_on_disk_goes_on_after_a_crash(tmp_path):
    @ray.remote(max_restarts=2, max_task_retries=2)
    class Immortal:
        def __init__(self, path):
            self.path = path
            self.count = int(path.read_text()) if path.exists() else 0

        def add(self):
            self.count += 1
            self.path.write_text(str(self.count))
            if self.count == 3:
                os._exit(1)
            return self.count

    actor = Immortal.remote(tmp_path / "count")
    assert [ray.get(actor.add.remote(), timeout=60) for _ in range(4)] == [1, 2, 4, 5]


def test_an_actor_is_made_again_by_the_program_when_it_has_died():
    @ray.remote
    class Fragile:
        def work(self, n):
            if n == 2:
                os._exit(1)
            return n

    actor, results = Fragile.remote(), []
    for n in range(4):
        try:
            results.append(ray.get(actor.work.remote(n), timeout=60))
        except ray.exceptions.RayActorError:
            actor = Fragile.remote()
    assert results == [0, 1, 3]


def test_an_evolution_of_generations_in_lock_step():
    @ray.remote
    def fitness(genes):
        return -float(np.sum((genes - 0.5) ** 2))

    rng = np.random.default_rng(3)
    population = [rng.random(4) for _ in range(8)]
    best = []
    for _ in range(4):
        scores = ray.get([fitness.remote(genes) for genes in population])
        order = np.argsort(scores)[::-1]
        best.append(scores[order[0]])
        parents = [population[i] for i in order[:4]]
        population = parents + [parent + rng.normal(scale=0.05, size=4) for parent in parents]
    assert best == sorted(best)


def test_an_asynchronous_actor_serves_many_at_once():
    @ray.remote
    class Service:
        def __init__(self):
            self.running = self.most = 0

        async def serve(self, n):
            self.running += 1
            self.most = max(self.most, self.running)
            while self.most < 10:
                await asyncio.sleep(0.005)
            self.running -= 1
            return n

        async def peak(self):
            return self.most

    service = Service.remote()
    assert ray.get([service.serve.remote(n) for n in range(10)], timeout=60) == list(range(10))
    assert ray.get(service.peak.remote()) == 10


def test_a_driver_of_asyncio_gathers_tasks_and_calls():
    @ray.remote
    def task(n):
        return n

    @ray.remote
    class Actor:
        async def call(self, n):
            return -n

    async def main():
        actor = Actor.remote()
        return await asyncio.gather(*[task.remote(n) for n in range(3)], *[actor.call.remote(n) for n in range(3)])

    assert asyncio.run(main()) == [0, 1, 2, 0, -1, -2]
