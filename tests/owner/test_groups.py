"""References to placement groups that are being placed."""

from __future__ import annotations

from typing import Any

from nbray.ids import object_id
from nbray.machine import Send
from nbray.owner import records as r
from nbray.owner.state import OwnerState
from nbray.wire import messages as m
from tests.owner.desk import HEAD_ADDRESS, ME, NODE, daemon, inline

GROUP = b"g" * 16


class Desk:
    def __init__(self) -> None:
        self.state = OwnerState(ME)
        self.tell(r.Attached(NODE, HEAD_ADDRESS))
        self.count = 0

    def tell(self, event: Any) -> list[Any]:
        effects = self.state.handle(event, 0.0)
        self.state.check()
        return effects

    def wait(self) -> tuple[bytes, list[Any]]:
        self.count += 1
        ref = object_id(ME.process + self.count.to_bytes(8, "big"))
        return ref, self.tell(r.GroupAwaited(ref, GROUP, inline(7)))

    def value(self, ref: bytes) -> m.Value | None:
        return self.state.objects.objects[ref].value


def update(state: str, why: str = "") -> m.GroupUpdate:
    return m.GroupUpdate(GROUP, state, [NODE], [{}], why)


WATCHES = Send(daemon(), m.WatchGroup(GROUP, ME))
CREATE = m.CreateGroup(m.GroupSpec(GROUP, [{}], "PACK", ME, ME))
MADE = r.GroupMade(CREATE)


def test_a_reference_has_its_value_when_the_group_is_created() -> None:
    desk = Desk()
    ref, effects = desk.wait()
    assert effects == [WATCHES]
    desk.tell(update("PENDING"))
    assert desk.value(ref) is None
    desk.tell(update("CREATED"))
    assert desk.value(ref) == inline(7)


def test_a_person_who_waits_is_told_why_once() -> None:
    desk = Desk()
    ref, _ = desk.wait()
    said = [e for e in desk.tell(update("PENDING", "too large")) if isinstance(e, r.Notice)]
    assert [notice.text for notice in said] == ["too large"]
    assert not desk.tell(update("PENDING", "too large"))
    assert desk.state.groups.why_pending(ref) == "too large"


def test_a_reference_fails_when_the_group_is_removed_and_that_is_nobodys_unhandled_error() -> None:
    desk = Desk()
    ref, _ = desk.wait()
    desk.tell(update("REMOVED", "it was removed"))
    value = desk.value(ref)
    assert value is not None
    assert value.failure is not None
    assert (value.failure.kind, value.failure.message) == ("TaskPlacementGroupRemoved", "it was removed")
    assert not [e for e in desk.tell(r.Dropped([ref])) if isinstance(e, r.Unhandled)]


def test_a_group_of_ours_that_is_known_to_be_there_is_not_asked_about() -> None:
    desk = Desk()
    assert desk.tell(MADE) == [Send(HEAD_ADDRESS, CREATE, soon=True)]
    desk.tell(update("CREATED"))
    ref, effects = desk.wait()
    assert not [e for e in effects if isinstance(e, Send)]
    assert desk.value(ref) == inline(7)


def test_after_we_removed_it_older_news_does_not_bring_it_back() -> None:
    desk = Desk()
    desk.tell(MADE)
    waited, _ = desk.wait()
    assert Send(HEAD_ADDRESS, m.RemoveGroup(GROUP, ME.process), soon=True) in desk.tell(r.GroupGivenUp(GROUP))
    value = desk.value(waited)
    assert value is not None
    assert value.failure is not None
    desk.tell(update("CREATED"))
    ref, _ = desk.wait()
    value = desk.value(ref)
    assert value is not None
    assert value.failure is not None
    desk.tell(update("REMOVED"))
    assert desk.state.groups.state(GROUP) == "REMOVED"
    assert not desk.state.groups.made


def test_the_end_of_the_cluster_ends_the_wait() -> None:
    desk = Desk()
    ref, _ = desk.wait()
    desk.tell(r.NodeLost(NODE, m.Failure("NodeDiedError", message="gone")))
    value = desk.value(ref)
    assert value is not None
    assert value.failure is not None
    assert value.failure.kind == "NodeDiedError"


def test_a_group_of_which_nothing_was_heard_yet_is_not_asked_for_twice() -> None:
    desk = Desk()
    desk.tell(MADE)
    ref, effects = desk.wait()
    assert effects == []
    desk.tell(update("CREATED"))
    assert desk.value(ref) == inline(7)


def test_why_a_group_waits_is_told_to_who_begins_to_wait_later() -> None:
    desk = Desk()
    desk.tell(MADE)
    assert not desk.tell(update("PENDING", "no room"))
    assert desk.wait()[1] == [r.Notice("", "waiting", "no room")]
    assert desk.wait()[1] == []
