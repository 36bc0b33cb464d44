"""Who is let in: tokens for one use, cookies, the key, and the names that this server goes by. Pure."""

from __future__ import annotations

import pytest

from nbray.dashboard.door import MOST_TOKENS, MOST_VISITORS, Door
from nbray.wire.addresses import is_loopback


def test_a_token_is_good_for_one_visit_and_the_cookie_for_all_later_ones() -> None:
    door = Door(8265)
    token = door.token()
    cookie = door.admit(token)
    assert cookie is not None
    assert door.knows(cookie, None)
    assert door.admit(token) is None
    assert door.knows(cookie, None)


@pytest.mark.parametrize("wrong", ["", "x", "é", "\udcff", "0" * 100_000])
def test_what_is_no_token_cookie_or_key_opens_nothing(wrong: str) -> None:
    door = Door(8265)
    door.token()
    assert door.admit(wrong) is None
    assert not door.knows(wrong, None)
    assert not door.knows(None, f"Bearer {wrong}")
    assert not door.knows(None, wrong)
    assert not door.knows(None, None)


def test_the_key_is_no_token_and_a_token_no_cookie() -> None:
    door = Door(8265)
    token = door.token()
    assert door.knows(None, f"Bearer {door.key}")
    assert not door.knows(door.key, None)
    assert not door.knows(token, None)
    assert not door.knows(None, f"Bearer {token}")
    assert door.admit(door.key) is None


def test_tokens_that_nobody_uses_and_visitors_do_not_pile_up() -> None:
    door = Door(8265)
    tokens = [door.token() for _ in range(MOST_TOKENS + 1)]
    assert door.admit(tokens[0]) is None
    cookies = [door.admit(door.token()) for _ in range(MOST_VISITORS + 1)]
    assert not door.knows(cookies[0], None)
    assert door.knows(cookies[-1], None)


def test_a_host_is_ours_only_by_its_whole_name_and_port() -> None:
    door = Door(8265, ["Box", "fe80::1"])
    for good in ("127.0.0.1:8265", "localhost:8265", "LOCALHOST:8265", "[::1]:8265", "box:8265", "[fe80::1]:8265"):
        assert door.is_ours(good), good
    for bad in (
        None,
        "",
        "127.0.0.1",
        "127.0.0.1:80",
        "evil.example:8265",
        "127.0.0.1:8265.evil.example",
        "localhost:8265:1",
        "127.1:8265",
    ):
        assert not door.is_ours(bad), bad


def test_the_usual_port_is_left_out_as_browsers_do() -> None:
    assert Door(80).is_ours("127.0.0.1")
    assert not Door(80).is_ours("127.0.0.1:8265")


def test_an_origin_is_ours_when_it_is_the_host_that_was_asked() -> None:
    door = Door(8265)
    assert door.is_from_us("http://127.0.0.1:8265", "127.0.0.1:8265")
    for origin in (
        None,
        "null",
        "",
        "http://evil.example",
        "http://localhost:8265",
        "http://127.0.0.1:8266",
        "http://[",
        "file://127.0.0.1:8265",
    ):
        assert not door.is_from_us(origin, "127.0.0.1:8265"), origin
    assert not door.is_from_us("http://evil.example:8265", "evil.example:8265")


def test_only_loopback_addresses_are_this_machine_alone() -> None:
    assert all(is_loopback(each) for each in ("127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(each) for each in ("0.0.0.0", "::", "*", "", "10.0.0.1", "example.org"))
