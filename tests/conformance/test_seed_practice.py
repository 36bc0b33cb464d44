"""Ray in practice, 2023: squares, a counter, Paillier encryption, map and reduce, pi by two ways, matrices, named resources."""

import math
import random
import time
from fractions import Fraction

import numpy as np
import pytest
from phe import paillier

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 2, "resources": {"alice": 2, "bob": 5}}


def test_squares(capsys):
    # Define the square task.
    @ray.remote
    def square(x):
        return x * x

    # Launch parallel square tasks.
    futures = [square.remote(i) for i in range(400)]
    print(ray.get(futures))
    assert capsys.readouterr().out == f"{[i * i for i in range(400)]}\n"


def test_a_counter(capsys):
    # Define the Counter actor.
    @ray.remote
    class Counter:
        def __init__(self):
            self.i = 0

        def get(self):
            return self.i

        def incr(self, value):
            self.i += value

    # Create a Counter actor.
    c = Counter.remote()

    # Submit calls to the actor. These calls run asynchronously but in
    # submission order on the remote actor process.
    for _ in range(10):
        c.incr.remote(1)

    # Retrieve final actor state.
    print(ray.get(c.get.remote()))
    assert capsys.readouterr().out == "10\n"


def test_paillier_encryption_one_by_one_and_in_batches():
    class Test:
        def gen_pubk(self):
            pubk, prik = paillier.generate_paillier_keypair(n_length=256)

            return pubk, prik

        @staticmethod
        @ray.remote
        def encrypt(pubk, num):
            return pubk.encrypt(num)

        @staticmethod
        @ray.remote
        def encrypt_batch(pubk, num):
            lis = []
            for i in range(num):
                lis.append(pubk.encrypt(i))
            return lis

    t = Test()
    pubk, prik = t.gen_pubk()
    task = []
    for i in range(40):
        task.append(t.encrypt.remote(pubk=pubk, num=i))
    assert [prik.decrypt(e) for e in ray.get(task)] == list(range(40))

    task = []
    for i in range(4):
        task.append(t.encrypt_batch.remote(pubk=pubk, num=10))
    assert [[prik.decrypt(e) for e in batch] for batch in ray.get(task)] == [list(range(10))] * 4


def test_map_and_reduce():
    items = list(range(100))
    map_func = lambda i: i * 2
    expected = [map_func(i) for i in items]

    @ray.remote
    def map(obj, f):
        return f(obj)

    assert ray.get([map.remote(i, map_func) for i in items]) == expected

    @ray.remote
    def sum_results(*elements):
        return np.sum(elements)

    remote_elements = [map.remote(i, map_func) for i in items]

    # simple reduce
    remote_final_sum = sum_results.remote(*remote_elements)
    assert ray.get(remote_final_sum) == sum(expected)


def test_pi_with_a_progress_actor(capsys):
    @ray.remote
    class ProgressActor:
        def __init__(self, total_num_samples: int):
            self.total_num_samples = total_num_samples
            self.num_samples_completed_per_task = {}

        def report_progress(self, task_id: int, num_samples_completed: int) -> None:
            self.num_samples_completed_per_task[task_id] = num_samples_completed

        def get_progress(self) -> float:
            return sum(self.num_samples_completed_per_task.values()) / self.total_num_samples

    @ray.remote
    def sampling_task(num_samples: int, task_id: int, progress_actor: ray.actor.ActorHandle) -> int:
        num_inside = 0
        for i in range(num_samples):
            x, y = random.uniform(-1, 1), random.uniform(-1, 1)
            if math.hypot(x, y) <= 1:
                num_inside += 1

            # Report progress every 10 thousand samples.
            if (i + 1) % 10_000 == 0:
                # This is async.
                progress_actor.report_progress.remote(task_id, i + 1)

        # Report the final progress.
        progress_actor.report_progress.remote(task_id, num_samples)
        return num_inside

    # Change this to match your cluster scale.
    NUM_SAMPLING_TASKS = 4
    NUM_SAMPLES_PER_TASK = 100_000
    TOTAL_NUM_SAMPLES = NUM_SAMPLING_TASKS * NUM_SAMPLES_PER_TASK

    # Create the progress actor.
    progress_actor = ProgressActor.remote(TOTAL_NUM_SAMPLES)

    results = [sampling_task.remote(NUM_SAMPLES_PER_TASK, i, progress_actor) for i in range(NUM_SAMPLING_TASKS)]

    # Query progress periodically.
    while True:
        progress = ray.get(progress_actor.get_progress.remote())
        print(f"Progress: {int(progress * 100)}%")

        if progress == 1:
            break

        time.sleep(0.1)

    # Get all the sampling tasks results.
    total_num_inside = sum(ray.get(results))
    pi = (total_num_inside * 4) / TOTAL_NUM_SAMPLES
    print(f"Estimated value of π is: {pi}")
    assert capsys.readouterr().out.split("\n")[-3] == "Progress: 100%"
    assert abs(pi - math.pi) < 0.03


def test_matrices_by_value_and_by_reference(capsys):
    # Define a task that sums the values in a matrix.
    @ray.remote
    def sum_matrix(matrix):
        return np.sum(matrix)

    # Call the task with a literal argument value.
    print(ray.get(sum_matrix.remote(np.ones((100, 100)))))

    # Put a large array into the object store.
    matrix_ref = ray.put(np.ones((1000, 1000)))

    # Call the task with the object reference as an argument.
    print(ray.get(sum_matrix.remote(matrix_ref)))
    assert capsys.readouterr().out == "10000.0\n1000000.0\n"


@pytest.mark.parametrize("resources", [{}, {"alice": 1}])
@pytest.mark.differs("timeline-at-once")
def test_pi_by_fractions_anywhere_and_on_the_node_that_has_alice(resources, most_at_once):
    @ray.remote
    def pi4_sample(sample_count):
        """pi4_sample runs sample_count experiments, and returns the
        fraction of time it was inside the circle.
        """
        in_count = 0
        for i in range(sample_count):
            x = random.random()
            y = random.random()
            if x * x + y * y <= 1:
                in_count += 1
        return Fraction(in_count, sample_count)

    SAMPLE_COUNT = 300 * 1000
    FULL_SAMPLE_COUNT = 12 * SAMPLE_COUNT
    BATCHES = int(FULL_SAMPLE_COUNT / SAMPLE_COUNT)
    results = []
    for _ in range(BATCHES):
        if resources:
            results.append(pi4_sample.options(resources={"alice": 1}).remote(sample_count=SAMPLE_COUNT))
        else:
            results.append(pi4_sample.remote(sample_count=SAMPLE_COUNT))
    output = ray.get(results)

    pi = sum(output) * 4 / len(output)
    assert abs(float(pi) - math.pi) / math.pi < 0.02
    assert all(isinstance(x, Fraction) for x in output)
    assert most_at_once("pi4_sample") == 2


@pytest.mark.differs("timeline-at-once")
def test_named_resources_bound_what_runs_at_once(most_at_once):
    @ray.remote(num_cpus=0)
    def serve(i):
        time.sleep(0.1)
        return i

    assert ray.get([serve.options(resources={"bob": 5}).remote(i) for i in range(3)]) == [0, 1, 2]
    assert most_at_once("serve") == 1
