"""What a cell would take on other machines: its measured tasks, run again by the real schedulers in virtual time.

    records of finished tasks --graph.py--> Graph --folding.py--> a smaller one --rehearsal.py--> seconds for a number of cores
                                              `---- critical path: the seconds that no number of cores can save

No scheduler is modelled here. Owners, nodes and the head are the machines of the real processes, in the simulator that tests
them (`nbray.testing`); what is assumed is that a task takes as long there as it took here.
"""

from nbray.planning.folding import folded
from nbray.planning.forecasts import CORES, MOST_TASKS, Forecast, forecast, grid
from nbray.planning.graph import Graph, Task, critical_path, graph_of

__all__ = ["CORES", "MOST_TASKS", "Forecast", "Graph", "Task", "critical_path", "folded", "forecast", "graph_of", "grid"]
