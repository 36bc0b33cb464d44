"""A cluster in one process and in virtual time: to see what a program would do, and to break things on purpose.

    from nbray.testing import Program, Simulation

    def script(driver):
        refs = [driver.submit(Program(number=i, duration_s=0.5)) for i in range(8)]
        values = yield from driver.get(refs)
        assert [value.number for value in values] == list(range(8))

    simulation = Simulation(seed=1, nodes=2, cpus=2)
    simulation.run(script)
    print(simulation.clock.now)  # virtual seconds

The machines are those of the real processes: owner, worker, node, head, object store, links between gateways. Simulated are the
clock, the network, memory, disks, and user code (`Program`). The same seed gives the same history, to the byte.
"""

from nbray.testing.faults import Fault, FaultPlan
from nbray.testing.history import Violation
from nbray.testing.programs import ActorProgram, Program
from nbray.testing.simulator import Simulation, simulate

__all__ = ["ActorProgram", "Fault", "FaultPlan", "Program", "Simulation", "Violation", "simulate"]
