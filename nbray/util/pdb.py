"""`nbray.util.pdb.set_trace()`: see nbray.util.rpdb."""

from nbray.util.rpdb import set_trace

__all__ = ["set_trace"]
