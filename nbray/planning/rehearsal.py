"""One run of a graph in virtual time: a script that submits what the notebook submitted, on nodes that nobody has."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from nbray.planning.graph import Graph
from nbray.testing import ActorProgram, FaultPlan, Program, Simulation
from nbray.testing.process import Process, Ref

WARM_S = 0.2  #: tasks of this length have every worker started before the clock is read
REST_S = 1.0  #: and their leases are given back by then
BOUND = 50.0  #: so many times longer than all work on one core: the rehearsal has failed
LONGEST_S = 900.0  #: more work than this is rehearsed faster: heartbeats of idle hours cost time and tell nothing


class Rehearsal(Simulation):
    """Calm weather and no faults: what differs between two of them is the cluster."""

    def __init__(self, graph: Graph, cores: int, nodes: int) -> None:
        super().__init__(1, nodes=nodes, cpus=cores, plan=FaultPlan(slow=0.0), checked=False)
        self._graph, self._nodes = graph, nodes
        self._functions = {name: 1 + number for number, name in enumerate({task.name: None for task in graph.tasks})}
        self._began = self._ended = 0.0
        self._work_s = graph.work_s + sum(task.think_s for task in graph.tasks)
        self._scale = max(1.0, self._work_s / LONGEST_S)

    def seconds(self) -> float:
        """From the first submission to the last end, in virtual seconds."""
        over: list[bool] = []
        driver = self._add_driver()
        driver.spawn(self._script(driver), lambda: over.append(True))
        until = self.clock.now + BOUND * (60.0 + self._work_s / self._scale)
        while not over:
            if not self.clock.step(until):
                raise RuntimeError(
                    f"the rehearsal of {len(self._graph.tasks)} tasks on {self._nodes} x {self.cpus} cores has no end"
                )
        return (self._ended - self._began) * self._scale

    def _script(self, driver: Process) -> Generator[Any, None, None]:
        warm = [driver.submit(Program(0, WARM_S, cpus=1.0)) for _ in range(self.cpus * self._nodes)]
        yield from driver.get(warm)
        driver.drop(*warm)
        actors = yield from self._actors(driver)
        yield REST_S
        refs: list[Ref] = []
        self._began = self.clock.now
        for task in self._graph.tasks:
            if task.after:
                yield from driver.wait_for([ref.id for ref in refs], task.after, local=False)
            if task.think_s:
                yield task.think_s / self._scale
            needs = [refs[need] for need in task.needs]
            program = Program(0, task.seconds / self._scale, self._functions[task.name], cpus=task.cpus)
            refs.append(driver.call(actors[task.actor], program, needs) if task.actor else driver.submit(program, needs))
        yield from driver.wait_for([ref.id for ref in refs], len(refs), local=False)
        self._ended = self.clock.now

    def _actors(self, driver: Process) -> Generator[Any, None, dict[bytes, Ref]]:
        """They are there before the cell begins: a cell that makes its own waits for them as its first calls did."""
        actors: dict[bytes, Ref] = {}
        for actor in {task.actor: None for task in self._graph.tasks if task.actor}:
            lanes = self._graph.lanes.get(actor, 1)
            actors[actor] = driver.create_actor(ActorProgram(max_concurrency=lanes, unordered=lanes > 1))
            first = driver.call(actors[actor], Program(0, 0.0))
            yield from driver.get([first])
            driver.drop(first)
        return actors
