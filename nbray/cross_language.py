"""`ray.cross_language`: calls into other languages, which nbray does not run. Each raises NotImplementedError."""

from nbray.identifiers import cpp_function, java_actor_class, java_function

__all__ = ["cpp_function", "java_actor_class", "java_function"]
