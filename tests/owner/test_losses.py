"""Why a lost object is not made again: the reason is its own, and it is told with the line that made it."""

from __future__ import annotations

import pytest

from nbray import config
from nbray.exceptions import ObjectReconstructionFailedError
from nbray.owner import records as r
from nbray.wire import messages as m
from nbray.wire.failures import error_of
from tests.owner.desk import NODE, OTHER_NODE, Desk, stored, worker

REASONS = ObjectReconstructionFailedError.REASON_MESSAGES


@pytest.fixture
def desk() -> Desk:
    return Desk()


def told(desk: Desk, obj: r.OwnedObject) -> ObjectReconstructionFailedError:
    """What `get` raises for an object whose node has died just now."""
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert obj.value is not None
    assert obj.value.failure is not None, obj.value
    error = error_of(obj.value.failure)
    assert isinstance(error, ObjectReconstructionFailedError)
    assert error.reason_message == REASONS[error.reason]
    assert f"cannot be reconstructed because {error.reason_message}" in str(error)
    assert error.object_ref_hex == obj.id.hex()
    return error


def test_what_was_put_cannot_be_made_again(desk: Desk) -> None:
    new = desk.put(stored(OTHER_NODE))
    error = told(desk, desk.state.objects.objects[new])
    assert error.reason == "OBJECT_UNRECONSTRUCTABLE_PUT"


def test_a_task_without_retries_says_so_and_which_line_it_was(desk: Desk) -> None:
    task = desk.running(retries=0, line="In[3] line 2")
    desk.done(task, stored(OTHER_NODE))
    error = told(desk, desk.object(task))
    assert error.reason == "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED"
    assert error.call_site == "In[3] line 2"
    assert "made at In[3] line 2" in str(error)


def test_a_task_that_has_used_its_retries_on_crashes_says_so(desk: Desk) -> None:
    task = desk.submit(retries=1)
    desk.grant(1, OTHER_NODE)
    desk.lost(desk.lease(task))
    desk.grant(2, OTHER_NODE)
    desk.done(task, stored(OTHER_NODE))
    assert told(desk, desk.object(task)).reason == "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED"


def test_a_task_that_has_used_its_retries_on_losses_says_so(desk: Desk) -> None:
    task = desk.running(retries=1)
    desk.done(task, stored(NODE))
    desk.tell(m.NodeDied(NODE, "it crashed"))
    desk.grant(2, OTHER_NODE)
    desk.done(task, stored(OTHER_NODE))
    assert told(desk, desk.object(task)).reason == "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED"


def test_what_a_method_made_is_not_made_again(desk: Desk) -> None:
    call = desk.call(desk.live_actor(1))
    desk.done(call, stored(OTHER_NODE), at=worker(1))
    assert told(desk, desk.object(call)).reason == "OBJECT_UNRECONSTRUCTABLE_ACTOR_TASK"


def test_a_task_that_was_cancelled_when_it_was_done_is_not_repeated(desk: Desk) -> None:
    task = desk.running()
    desk.tell(r.CancelAsked(desk.ref(task)))
    desk.done(task, stored(OTHER_NODE))
    assert told(desk, desk.object(task)).reason == "OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED"


def test_beyond_the_limit_of_lineage_a_task_is_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LINEAGE_LIMIT", 1)
    kept, forgotten = desk.running(), desk.running(2)
    desk.done(kept, stored(OTHER_NODE))
    desk.done(forgotten, stored(OTHER_NODE))
    assert told(desk, desk.object(forgotten)).reason == "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED"
    assert desk.object(kept).value is None, "it is being made again"


def test_a_dependant_has_the_reason_as_its_cause(desk: Desk) -> None:
    argument = desk.put(stored(OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    task = desk.submit(needs=[argument])
    error = error_of(desk.failure(task))
    assert isinstance(error, ObjectReconstructionFailedError)
    assert error.reason == "OBJECT_UNRECONSTRUCTABLE_PUT"
