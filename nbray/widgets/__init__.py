"""Views of a cluster for a notebook. Each is live while it is seen, and says the same as text where there is no notebook.

nbray.widgets.Cluster()              nodes, workers, memory, the object store, what runs and what waits
nbray.widgets.Timeline(7)            what ran where and when, of a cell: its number, tag or handle; without one of the last
nbray.widgets.Progress(refs)         how many of these are done, and how long the rest takes
nbray.widgets.Lineage("scores")      what a variable was made from
nbray.widgets.Objects()              which names hold objects of the cluster
"""

from nbray.widgets.cluster import Cluster
from nbray.widgets.lineage import Lineage
from nbray.widgets.objects import Objects
from nbray.widgets.progress import Progress
from nbray.widgets.timeline import Timeline

__all__ = ["Cluster", "Lineage", "Objects", "Progress", "Timeline"]
