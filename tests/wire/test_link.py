"""The link between two gateways, over a network that misbehaves as hypothesis pleases. No clock: time is moved."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbray.machine import Tick
from nbray.wire import link as link_module
from nbray.wire.link import ACK, DATA, OPEN, Abandoned, Arrived, Deliver, Link, Lost, Opened, Packet, Rerouted, Submitted, Transmit


class Network:
    """Two links, "a" and "b", and the packets between them. `now` moves only by `advance`."""

    def __init__(self, dead_s: float = 1e9) -> None:
        self.now = 100.0
        self.ends = {"a": Link(1000, dead_s=dead_s), "b": Link(2000, dead_s=dead_s)}
        self.wires: dict[str, list[Packet]] = {"a": [], "b": []}  # by receiver
        self.delivered: dict[str, list[bytes]] = {"a": [], "b": []}
        self.submitted: dict[str, list[bytes]] = {"a": [], "b": []}
        self.lost: list[tuple[str, Lost]] = []
        self.opened = {"a": 0, "b": 0}
        self.story: list[str] = []

    def give(self, end: str, event: Any) -> None:
        self.story.append(f"{self.now:.3f} {end} {event!r}")
        other = "b" if end == "a" else "a"
        for effect in self.ends[end].handle(event, self.now):
            match effect:
                case Transmit():
                    self.wires[other].append(effect.packet)
                case Deliver():
                    self.delivered[end].append(bytes(effect.parts[0]))
                case Lost():
                    self.lost.append((end, effect))
                case Opened():
                    self.opened[end] += 1
        self.ends[end].check()

    def submit(self, end: str, size: int = 0) -> None:
        message = f"{end}{len(self.submitted[end]):06d}".encode() + b"." * size
        self.submitted[end].append(message)
        self.give(end, Submitted((message,)))

    def arrive(self, end: str, index: int = 0, *, keep: bool = False) -> None:
        packets = self.wires[end]
        if packets:
            packet = packets[index % len(packets)] if keep else packets.pop(index % len(packets))
            self.give(end, Arrived(packet))

    def advance(self, seconds: float) -> None:
        """Move time, ticking each end at its deadlines on the way."""
        until = self.now + seconds
        while True:
            due = [(at, end) for end, link in self.ends.items() if (at := link.next_deadline()) is not None and at <= until]
            if not due:
                break
            at, end = min(due)
            self.now = max(self.now, at)
            self.give(end, Tick())
        self.now = until

    def settle(self, seconds: float = 60.0) -> None:
        """A healthy network for a while: everything arrives, in order, at once."""
        until = self.now + seconds
        while self.now < until:
            while self.wires["a"] or self.wires["b"]:
                self.arrive("a")
                self.arrive("b")
            self.advance(0.05)
            if not (self.wires["a"] or self.wires["b"]) and all(e.undelivered == 0 for e in self.ends.values()):
                break

    def told(self) -> str:
        return "\n".join(self.story[-60:])


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "submit", "arrive", "arrive", "arrive", "repeat", "drop", "advance", "reroute"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 40),
    ),
    max_size=120,
)


def play(network: Network, actions: list[tuple[str, str, int]]) -> None:
    for what, end, number in actions:
        match what:
            case "submit":
                network.submit(end, number * 10)
            case "arrive":
                network.arrive(end, number)
            case "repeat":
                network.arrive(end, number, keep=True)
            case "drop" if network.wires[end]:
                network.wires[end].pop(number % len(network.wires[end]))
            case "advance":
                network.advance(number / 20)
            case "reroute":
                network.give(end, Rerouted())
            case "abandon":
                network.give(end, Abandoned("test"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=ACTIONS)
def test_every_message_is_delivered_exactly_once_in_order_while_both_live(actions: list[tuple[str, str, int]]) -> None:
    network = Network()
    play(network, actions)
    network.settle()
    assert network.delivered["b"] == network.submitted["a"], network.told()
    assert network.delivered["a"] == network.submitted["b"], network.told()
    assert not network.lost, network.told()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=ACTIONS, abandons=st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["a", "b"])), max_size=4))
def test_after_a_session_is_given_up_nothing_of_it_comes_twice_late_or_out_of_order(
    actions: list[tuple[str, str, int]], abandons: list[tuple[int, str]]
) -> None:
    network = Network()
    for at, end in abandons:
        actions.insert(min(at, len(actions)), ("abandon", end, 0))
    play(network, actions)
    network.settle()
    for end, other in (("a", "b"), ("b", "a")):
        taken = network.delivered[end]
        assert taken == sorted(set(taken)), network.told()  # names sort in the order of submission
        assert set(taken) <= set(network.submitted[other])
    # Whatever was lost was said to be lost; and the two agree again, so a new message gets through.
    missing = sum(len(network.submitted[o]) - len(network.delivered[e]) for e, o in (("a", "b"), ("b", "a")))
    assert missing <= sum(lost.undelivered for _, lost in network.lost), network.told()
    for _ in range(2):  # the first round may find one end in a session that the other gave up, and says so
        before = len(network.lost)
        network.submit("a")
        network.submit("b")
        network.settle()
    assert (network.delivered["b"][-1], network.delivered["a"][-1]) == (network.submitted["a"][-1], network.submitted["b"][-1]), (
        network.told()
    )
    assert len(network.lost) == before, network.told()


@settings(max_examples=100, deadline=None)
@given(blackout=st.floats(0.1, 12.5), actions=ACTIONS)
def test_a_blackout_shorter_than_the_dead_time_loses_nothing(blackout: float, actions: list[tuple[str, str, int]]) -> None:
    network = Network(dead_s=15.0)
    network.submit("a")
    network.settle()
    for what, end, number in actions:
        if what == "submit":
            network.submit(end, number)
    network.wires["a"].clear()
    network.wires["b"].clear()
    for _ in range(20):
        network.advance(blackout / 20)
        network.wires["a"].clear()
        network.wires["b"].clear()
    network.settle()
    assert network.delivered["b"] == network.submitted["a"], network.told()
    assert network.delivered["a"] == network.submitted["b"], network.told()
    assert not network.lost


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    packets=st.lists(
        st.builds(
            Packet,
            kind=st.integers(0, 2),
            from_epoch=st.sampled_from([0, 1999, 2000, 2**63]),
            to_epoch=st.sampled_from([0, 999, 1000, 1001]),
            seq=st.integers(0, 2**64 - 1),
            ack=st.integers(0, 2**64 - 1),
            credit=st.integers(0, 2**32 - 1),
            gaps=st.lists(st.integers(0, 2**64 - 1), max_size=20).map(tuple),
            parts=st.just((b"junk",)),
        ),
        max_size=30,
    )
)
def test_any_packet_at_all_leaves_the_link_in_a_legal_state(packets: list[Packet]) -> None:
    network = Network()
    network.submit("a")
    network.settle()
    for packet in packets:
        network.give("a", Arrived(packet))
        network.submit("a")


def opened(network: Network) -> Network:
    network.submit("a")
    network.settle()
    network.delivered["b"].clear()
    network.submitted["a"].clear()
    return network


def test_a_message_waits_until_the_peer_is_heard_of_and_is_asked_for_with_backoff() -> None:
    network = Network()
    network.submit("a")
    asked = []
    for _ in range(4):
        asked.append(network.now)
        network.wires["b"].clear()
        network.advance(network.ends["a"].next_deadline() - network.now)  # type: ignore[operator]
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(asked)]
    assert gaps == [0.1, 0.2, 0.4]
    assert network.wires["b"][0].kind == OPEN


def test_a_packet_of_an_older_session_of_the_peer_is_refused() -> None:
    network = opened(Network())
    network.submit("a")
    old = network.wires["b"][0]
    assert old.kind == DATA
    network.give("a", Abandoned("test"))
    network.submit("a")
    network.settle()
    taken = list(network.delivered["b"])
    network.give("b", Arrived(old))
    assert network.delivered["b"] == taken
    assert network.ends["b"].stale == 1


def test_credit_bounds_what_is_in_flight_and_full_asks_the_shell_to_stop() -> None:
    network = opened(Network())
    size = 2**20
    for _ in range(110):
        network.submit("a", size)
    link = network.ends["a"]
    assert link._flight_bytes <= link_module.WINDOW_BYTES
    assert link.full
    network.settle()
    assert not link.full
    assert network.delivered["b"] == network.submitted["a"]


def test_a_message_larger_than_the_window_still_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "WINDOW_BYTES", 1000)
    network = opened(Network())
    network.submit("a", 5000)
    network.submit("a", 5000)
    network.settle()
    assert network.delivered["b"] == network.submitted["a"]


def test_the_receiver_holds_no_more_than_its_window_of_early_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "WINDOW_BYTES", 10_000)
    network = opened(Network())
    end = network.ends["b"]
    for seq in range(100, 200):
        network.give("b", Arrived(Packet(DATA, 1000, 2000, seq, 0, 10_000, (), (b"x" * 1000,))))
    assert end._early_bytes <= 10_000
    assert end.refused == 90


def test_a_gap_is_named_and_filled_before_any_time_out() -> None:
    network = opened(Network())
    for _ in range(3):
        network.submit("a")
    network.wires["b"].pop(0)
    network.advance(0.1)
    while network.wires["b"]:
        network.arrive("b")
    network.advance(0.01)
    assert [p.gaps for p in network.wires["a"] if p.kind == ACK] == [(2,)]
    before = network.now
    while network.wires["a"] or network.wires["b"]:
        network.arrive("a")
        network.arrive("b")
    assert network.delivered["b"] == network.submitted["a"]
    assert network.now == before


def test_only_the_oldest_message_is_repeated_at_a_time_out_and_all_of_them_after_a_change_of_route() -> None:
    network = opened(Network())
    for _ in range(5):
        network.submit("a")
    network.wires["b"].clear()
    network.advance(0.31)
    assert len(network.wires["b"]) == 1
    network.wires["b"].clear()
    network.give("a", Rerouted())
    assert len(network.wires["b"]) == 5


def test_silence_while_an_answer_is_owed_ends_the_session_with_a_count() -> None:
    network = opened(Network(dead_s=15.0))
    for _ in range(7):
        network.submit("a")
    network.wires["b"].clear()
    network.advance(15.1)
    assert [(end, lost.undelivered) for end, lost in network.lost] == [("a", 7)]
    assert "15 s" in network.lost[0][1].reason


def test_an_idle_link_is_never_taken_for_dead() -> None:
    network = opened(Network(dead_s=15.0))
    network.advance(10_000)
    assert not network.lost
    assert network.ends["a"].next_deadline() is None


def test_a_silent_peer_with_a_full_queue_is_given_up_before_the_dead_time() -> None:
    network = opened(Network(dead_s=15.0))
    network.advance(1)
    for _ in range(110):
        network.submit("a", 2**20)
    network.wires["b"].clear()
    network.advance(4.5)
    network.submit("a")
    assert network.lost
    assert "MiB wait for it" in network.lost[0][1].reason


def test_an_acknowledgement_of_what_was_never_sent_is_ignored() -> None:
    network = opened(Network())
    network.submit("a")
    network.give("a", Arrived(Packet(ACK, 2000, 1000, 0, 99, 1000)))
    assert network.ends["a"].undelivered == 1
    assert network.ends["a"].refused == 1


def test_a_lone_message_is_acknowledged_before_its_time_out_comes() -> None:
    network = opened(Network())
    network.submit("a")
    network.arrive("b")
    network.advance(0.05)
    assert [p.kind for p in network.wires["a"]] == [ACK]
    network.arrive("a")
    network.advance(10)
    assert not network.wires["b"], "it was sent again although it had arrived"


def test_connections_that_break_before_the_second_end_is_heard_cannot_keep_its_acknowledgements_out_for_ever() -> None:
    """Each connection carries 200,000 bytes, first all that one end has put on it, and loses the rest."""
    network = Network()
    for _ in range(400):
        network.submit("a", 5000)
        network.submit("b", 5000)
    for _ in range(40):
        network.wires["a"].clear()
        network.wires["b"].clear()
        network.give("a", Rerouted())
        network.give("b", Rerouted())
        carried = 0
        while carried < 200_000 and any(network.wires.values()):
            receiver = next(end for end, packets in network.wires.items() if packets)
            carried += sum(map(len, network.wires[receiver][0].parts))
            network.arrive(receiver)
            network.advance(0.03)
    network.settle()
    assert network.delivered == {"a": network.submitted["b"], "b": network.submitted["a"]}, network.told()
    assert network.ends["a"].repeated + network.ends["b"].repeated < 400, "most of what was carried was carried twice"


def test_a_new_route_gets_little_at_first_and_all_that_waits_once_it_answers() -> None:
    network = Network()
    network.submit("a")
    network.settle()
    for _ in range(100):
        network.submit("a", 1000)
    network.wires["b"].clear()
    network.give("a", Rerouted())
    assert [p.seq for p in network.wires["b"]] == list(range(2, 2 + link_module.ROUTE_BYTES // 1007))
    network.settle()
    assert network.delivered["b"] == network.submitted["a"]
    assert network.ends["b"].repeated == 0
