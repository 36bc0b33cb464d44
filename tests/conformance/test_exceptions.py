"""The classes of errors: what each is a kind of, and the facts that programs read from them."""

from __future__ import annotations

import builtins
import os
import pickle
import time

import pytest

from tests.conformance.subject import ray

errors = ray.exceptions

#: Class -> what else it is, besides RayError.
KINDS = {
    "ActorAlreadyExistsError": "ValueError",
    "ActorDiedError": "RayActorError",
    "ActorHandleNotFoundError": "ValueError",
    "ActorPlacementGroupRemoved": "",
    "ActorUnavailableError": "RayActorError",
    "ActorUnschedulableError": "",
    "AsyncioActorExit": "",
    "AuthenticationError": "",
    "CrossLanguageError": "",
    "GetTimeoutError": "TimeoutError",
    "LocalRayletDiedError": "",
    "NodeDiedError": "",
    "ObjectFetchTimedOutError": "ObjectLostError",
    "ObjectFreedError": "ObjectLostError",
    "ObjectLostError": "",
    "ObjectReconstructionFailedError": "ObjectLostError",
    "ObjectRefStreamEndOfStreamError": "",
    "ObjectStoreFullError": "",
    "OufOfBandObjectRefSerializationException": "",
    "OutOfDiskError": "",
    "OutOfMemoryError": "",
    "OwnerDiedError": "ObjectLostError",
    "PendingCallsLimitExceeded": "",
    "PlasmaObjectNotAvailable": "",
    "RayActorError": "",
    "RayCgraphCapacityExceeded": "RaySystemError",
    "RayChannelError": "RaySystemError",
    "RayChannelTimeoutError": "RayChannelError TimeoutError",
    "RayDirectTransportError": "RaySystemError",
    "RayError": "",
    "RaySystemError": "",
    "RayTaskError": "",
    "ReferenceCountingAssertionError": "ObjectLostError AssertionError",
    "RpcError": "",
    "RuntimeEnvSetupError": "",
    "StreamingGeneratorReplayInconsistentError": "RaySystemError",
    "TaskCancelledError": "",
    "TaskPlacementGroupRemoved": "",
    "TaskUnschedulableError": "",
    "UnserializableException": "",
    "UserCodeException": "",
    "WorkerCrashedError": "",
}


def until_it_raises(act, bound_s=30):
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        act()
        time.sleep(0.05)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_error_is_of_its_kinds(name):
    cls = getattr(errors, name)
    assert issubclass(cls, errors.RayError)
    assert issubclass(cls, Exception)
    for kind in KINDS[name].split():
        assert issubclass(cls, getattr(errors, kind, None) or getattr(builtins, kind))


def test_the_error_of_a_task_has_its_facts_and_its_cause():
    @ray.remote
    def fails():
        raise KeyError("which")

    with pytest.raises(KeyError) as raised:
        ray.get(fails.remote())
    error = raised.value
    assert isinstance(error, errors.RayTaskError)
    assert "KeyError: 'which'" in str(error)
    assert isinstance(error.cause, KeyError)
    assert error.cause.args == ("which",)
    assert "RayTaskError(KeyError)" in repr(error)


@pytest.mark.differs("error-with-its-process")
def test_the_error_that_is_the_users_class_too_has_the_facts_of_the_task():
    @ray.remote
    def fails():
        raise KeyError("which")

    with pytest.raises(KeyError) as raised:
        ray.get(fails.remote())
    assert raised.value.function_name.endswith("fails")
    assert "KeyError: 'which'" in raised.value.traceback_str
    assert raised.value.pid != os.getpid()
    assert isinstance(pickle.loads(pickle.dumps(raised.value)), KeyError)


def test_the_error_of_a_dead_actor_has_its_facts():
    @ray.remote
    class Dies:
        def die(self):
            os._exit(1)

    @ray.remote
    class NeverLives:
        def __init__(self):
            raise ValueError("not today")

        def ping(self):
            return 1

    actor, stillborn = Dies.remote(), NeverLives.remote()
    with pytest.raises(errors.RayActorError) as raised:
        ray.get(actor.die.remote())
    with pytest.raises(errors.ActorDiedError):
        ray.get(actor.die.remote())
    assert raised.value.actor_id == actor._actor_id.hex()
    assert not raised.value.actor_init_failed
    assert raised.value.preempted is False
    with pytest.raises(errors.ActorDiedError) as raised:
        ray.get(stillborn.ping.remote())
    assert raised.value.actor_init_failed


def test_the_owner_of_an_object_takes_it_along():
    @ray.remote
    class Owner:
        def make(self):
            return [ray.put("mine")]

        def die(self):
            os._exit(1)

    owner = Owner.remote()
    [ref] = ray.get(owner.make.remote())
    with pytest.raises(errors.RayActorError):
        ray.get(owner.die.remote())
    with pytest.raises(errors.OwnerDiedError) as raised:
        until_it_raises(lambda: ray.get(ref))  # Ray hears of it a little later
    assert isinstance(raised.value, errors.ObjectLostError)


def test_the_classes_are_listed():
    assert {errors.RayTaskError, errors.GetTimeoutError, errors.ObjectLostError} <= set(errors.RAY_EXCEPTION_TYPES)


def test_the_reasons_why_a_lost_object_is_not_made_again_have_words():
    words = errors.ObjectReconstructionFailedError.REASON_MESSAGES
    assert len(words) >= 6
    said = " ".join(words.values())
    for part in ("put()", "max_retries=0", "number of task retries has been exceeded", "cancelled", "memory"):
        assert part in said, part
