"""Proof and admission, without a socket: time, nonces and connections are handed in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nbray
from nbray import config
from nbray.exceptions import AuthenticationError
from nbray.wire import auth
from nbray.wire.auth import Admitted, Challenge, Denied, Door, Hello, Knock, Reply, credentials

MINE = credentials("ab" * 16, b"s" * 32, "test.json")
KEY = "k" * 40
NONCE = b"n" * 32
NODE = b"visitor."


def door() -> Door:
    return Door(MINE, b"the-head", 4096)


def said(reply: Reply) -> object:
    return auth.decode_reply(reply.frame)


def knocked(at: Door, connection: int = 1, peer: str = "10.0.0.9", key: str = KEY) -> Challenge:
    at.connected(connection, peer, 0.0)
    reply = said(at.heard(connection, key, auth.encode(Knock(1)), NONCE))
    assert isinstance(reply, Challenge)
    return reply


def hello(challenge: Challenge, key: str = KEY, node: bytes = NODE, mine: auth.Credentials = MINE) -> Hello:
    return auth.hello(mine, challenge, key.encode(), node, 0)


def admitted(at: Door, connection: int, key: str, node: bytes) -> Reply:
    return at.heard(connection, key, auth.encode(hello(knocked(at, connection, key=key), key, node)), NONCE)


def test_whoever_knows_the_secret_is_admitted_as_the_node_it_says_it_is() -> None:
    at = door()
    reply = admitted(at, 1, KEY, NODE)
    assert said(reply) == Admitted(b"the-head")
    assert reply.admitted
    assert at.visitors[1].node == NODE
    assert at.next_deadline() is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"proof": b"x" * 32}, "secret is wrong"),
        ({"proof": b""}, "secret is wrong"),
        ({"role": "client"}, "secret is wrong"),
        ({"node": b"another."}, "secret is wrong"),
        ({"lane": 1}, "secret is wrong"),
        ({"lane": -1}, "unknown role or lane"),
        ({"role": "viewer"}, "unknown role or lane"),
        ({"cluster": "cd" * 16}, "it wants cluster cdcdcdcd, and this is cluster abababab"),
        ({"protocol": 2}, "protocol 2"),
        ({"nbray": "9.9"}, f"nbray 9.9 and this cluster nbray {nbray.__version__}"),
        ({"python": "3.9.1"}, "runs Python 3.9.1"),
    ],
)
def test_any_other_word_in_a_hello_is_denied(change: dict[str, object], reason: str) -> None:
    at = door()
    reply = at.heard(1, KEY, auth.encode(msgspec.structs.replace(hello(knocked(at)), **change)), NONCE)
    denial = said(reply)
    assert isinstance(denial, Denied)
    assert reason in denial.reason
    assert reply.close
    assert at.visitors[1].node is None


def test_the_versions_are_told_only_to_those_who_know_the_secret() -> None:
    at = door()
    wrong = msgspec.structs.replace(hello(knocked(at)), proof=b"", nbray="9.9")
    assert nbray.__version__ not in at.heard(1, KEY, auth.encode(wrong), NONCE).close


def test_a_hello_serves_once_one_connection_and_one_key() -> None:
    at = door()
    good = auth.encode(hello(knocked(at)))
    assert at.heard(1, KEY, good, NONCE).admitted
    at.connected(2, "10.0.0.9", 0.0)
    assert "answers no challenge" in at.heard(2, KEY, good, NONCE).close
    at.connected(3, "10.0.0.9", 0.0)
    at.heard(3, "o" * 40, auth.encode(Knock(1)), NONCE)
    assert "secret is wrong" in at.heard(3, "o" * 40, good, NONCE).close
    knocked(at, 4)
    bad = auth.encode(msgspec.structs.replace(hello(Challenge(NONCE, MINE.cluster)), proof=b""))
    at.heard(4, KEY, bad, NONCE)
    assert "answers no challenge" in at.heard(4, KEY, good, NONCE).close, "a second guess on one nonce"


def test_a_key_that_changes_and_a_second_knock_are_denied() -> None:
    at = door()
    knocked(at)
    assert "knocked twice" in at.heard(1, KEY, auth.encode(Knock(1)), NONCE).close
    at = door()
    knocked(at)
    assert "key changed" in at.heard(1, "o" * 40, auth.encode(Knock(1)), NONCE).close


@example(frame=b"\x91\xa1\x80")  # a tag that is not UTF-8
@given(frame=st.binary(max_size=1024))
def test_any_bytes_before_admission_are_answered_with_a_denial(frame: bytes) -> None:
    at = door()
    at.connected(1, "10.0.0.9", 0.0)
    reply = at.heard(1, KEY, frame, NONCE)
    assert not reply.admitted
    assert reply.close or isinstance(said(reply), Challenge)


def test_what_is_said_before_admission_is_bounded_in_sum() -> None:
    at = door()
    knocked(at)
    assert "more than 1024 bytes" in at.heard(1, KEY, b"x" * 1023, NONCE).close


def test_a_name_belongs_to_its_key_until_the_node_is_forgotten() -> None:
    at = door()
    assert admitted(at, 1, KEY, NODE).admitted
    assert admitted(at, 2, KEY, NODE).admitted, "the same process may have several connections"
    assert "which another process is" in admitted(at, 3, "o" * 40, NODE).close
    assert "which another process is" in admitted(at, 4, KEY, b"the-head").close
    at.forget(NODE)
    assert admitted(at, 5, "o" * 40, NODE).admitted


def test_the_oldest_visitor_of_a_crowded_address_makes_way_and_members_never_do() -> None:
    at = door()
    assert admitted(at, 0, KEY, NODE).admitted
    closed = [who for n in range(1, 200) for who, _ in leave(at, at.connected(n, "10.0.0.9", float(n)))]
    assert closed == list(range(1, 200 - auth.MAX_PRE_AUTH_PER_PEER))
    assert at.connected(1000, "10.0.0.10", 300.0) == [], "another address is not crowded"


def leave(at: Door, closed: list[tuple[int, str]]) -> list[tuple[int, str]]:
    for who, _ in closed:
        at.closing(who)
    return closed


def test_many_addresses_together_are_bounded_too() -> None:
    at = door()
    closed = [who for n in range(1000) for who, _ in leave(at, at.connected(n, f"10.0.{n // 250}.{n % 250}", float(n)))]
    assert len(closed) == 1000 - auth.MAX_PRE_AUTH


def test_beyond_the_limit_of_connections_a_member_stays_and_the_newcomer_waits_in_vain() -> None:
    at = Door(MINE, b"the-head", 2)
    for n in (0, 1):
        assert admitted(at, n, KEY, NODE).admitted
    assert at.connected(2, "10.0.0.9", 0.0) == [(2, "too many connections")]


def test_those_who_prove_nothing_in_time_are_named() -> None:
    at = door()
    at.connected(1, "10.0.0.9", 100.0)
    at.connected(2, "10.0.0.9", 103.0)
    assert at.next_deadline() == 100.0 + config.PRE_AUTH_S
    assert [who for who, _ in at.late(100.0 + config.PRE_AUTH_S)] == [1]
    at.gone(1)
    assert at.next_deadline() == 103.0 + config.PRE_AUTH_S


def test_a_client_proves_nothing_to_the_gateway_of_another_cluster() -> None:
    with pytest.raises(AuthenticationError, match=r"cluster cdcdcdcd, test\.json to cluster abababab"):
        hello(Challenge(NONCE, "cd" * 16))


def test_the_proof_depends_on_every_word_and_the_words_cannot_be_shifted() -> None:
    base = {"role": "node", "client_public": b"key", "nonce": b"nonce", "node": NODE, "lane": 0}
    proofs = {MINE.proof(**base)}  # type: ignore[arg-type]
    for name, other in (("role", "client"), ("client_public", b"keyn"), ("nonce", b"once"), ("node", b"another."), ("lane", 1)):
        proofs.add(MINE.proof(**{**base, name: other}))  # type: ignore[arg-type]
    proofs.add(MINE.proof(**{**base, "client_public": b"keyn", "nonce": b"once"}))  # type: ignore[arg-type]
    proofs.add(credentials("ab" * 16, b"t" * 32, "").proof(**base))  # type: ignore[arg-type]
    assert len(proofs) == 8


def test_the_derivation_never_changes_because_connection_files_outlive_versions() -> None:
    assert auth.derive(b"s" * 32, "role node").hex() == "8bbb974065daad857b465e69adda3ebb12c3d486430ebafb3bc766083f93ed44"
    assert MINE.server_public == b"0RPo*w]y2[c>6XTpX<ZQpv-=v0v$a9KUnY+rm3wb"


def test_an_old_libzmq_or_one_without_curve_opens_no_port() -> None:
    auth.check_libzmq()
    for version, curve in (((4, 3, 2), True), ((4, 2, 9), True), ((4, 3, 5), False)):
        with pytest.raises(AuthenticationError, match="pip install -U pyzmq"):
            auth.check_libzmq(version, curve)


def test_the_secret_shows_in_no_repr() -> None:
    assert "ssss" not in repr(MINE)
    assert "ssss" not in str(MINE)
