"""`ray.remote_function`: the type of a remote function, for annotations."""

from nbray.functions import RemoteFunction

__all__ = ["RemoteFunction"]
