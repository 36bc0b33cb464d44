"""Connection files and tokens: what is written, what is refused and in which words, and what an address means."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbray.exceptions import AuthenticationError
from nbray.wire import connection_file
from nbray.wire.connection_file import Connection, find, from_environment, from_token, known, load, new, write
from nbray.wire.rundir import HostileDirectory


@pytest.fixture
def root(tmp_path: Path) -> str:
    made = tmp_path / "nbray"
    made.mkdir(mode=0o700)
    return str(made)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBRAY_TOKEN", raising=False)
    monkeypatch.setattr(connection_file, "_scrubbed", [])


def cluster(port: int = 6379, host: str = "10.0.0.1", directory: str = "") -> Connection:
    return new(host, port, created="2026-11-21T12:00:00+00:00", directory=directory)


def test_what_is_written_is_read_back_and_only_its_owner_can_read_it(root: str) -> None:
    connection = cluster(directory="/run/x")
    path = write(connection, root)
    assert load(path) == connection_file.Found(connection, path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)], "a draft was left"


def test_writing_again_replaces_the_file_and_keeps_it_private(root: str) -> None:
    connection = cluster()
    path = write(connection, root)
    os.chmod(path, 0o644)
    assert write(msgspec.structs.replace(connection, host="other"), root) == path
    assert load(path).connection.host == "other"


def test_a_directory_that_others_can_enter_is_refused(root: str) -> None:
    os.mkdir(f"{root}/connections", 0o755)
    os.chmod(f"{root}/connections", 0o755)
    with pytest.raises(HostileDirectory, match="0755"):
        write(cluster(), root)


def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(root: str) -> None:
    path = write(cluster(), root)
    for mode in (0o640, 0o604, 0o620):
        os.chmod(path, mode)
        with pytest.raises(AuthenticationError, match=f"{mode:04o}.*chmod 600 {path}"):
            load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_a_file_of_another_user_is_refused(root: str) -> None:
    path = write(cluster(), root)
    os.chown(path, 65534, -1)
    with pytest.raises(AuthenticationError, match="belongs to uid 65534"):
        load(path)


def test_a_symbolic_link_a_fifo_and_a_directory_are_refused(root: str) -> None:
    path = write(cluster(), root)
    os.symlink(path, f"{root}/link.json")
    os.mkfifo(f"{root}/fifo.json", 0o600)
    os.mkdir(f"{root}/dir.json", 0o700)
    with pytest.raises(AuthenticationError, match="symbolic link"):
        load(f"{root}/link.json")
    for name in ("fifo", "dir"):
        with pytest.raises(AuthenticationError, match="not a plain file"):
            load(f"{root}/{name}.json")


def test_a_missing_file_is_a_connection_error(root: str) -> None:
    with pytest.raises(ConnectionError, match="no connection file"):
        load(f"{root}/none.json")


def placed(root: str, raw: bytes) -> str:
    path = f"{root}/x.json"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(raw)
    return path


GOOD = msgspec.json.decode(msgspec.json.encode(cluster()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 0}, "port 0"),
        ({"port": 65536}, "port 65536"),
        ({"port": "80"}, "Expected `int`"),
        ({"port": 1.5}, "Expected `int`"),
        ({"host": "a\nb"}, "host"),
        ({"host": ""}, "host"),
        ({"host": "h" * 300}, "host"),
        ({"cluster": "xyz"}, "cluster id"),
        ({"cluster": 7}, "Expected `str`"),
        ({"secret": ""}, "secret"),
        ({"secret": "dGVzdA"}, "secret"),
        ({"secret": "\u00e9" * 43}, "secret"),
        ({"secret": GOOD["secret"] + "\n"}, "secret"),
        ({"server_public": "short"}, "server key"),
        ({"protocol": 999}, "protocol 999"),
        ({"directory": "relative"}, "directory"),
        ({"directory": "/a\0b"}, "directory"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(root: str, change: dict[str, object], says: str) -> None:
    path = placed(root, msgspec.json.encode({**GOOD, **change}))
    with pytest.raises(AuthenticationError, match=says) as caught:
        load(path)
    assert path in str(caught.value)
    assert GOOD["secret"] not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf{}", b"[]", b"{", b"\xff\xfe", b"[" * 10_000, b"null", b'{"port": NaN}'])
def test_what_is_no_connection_at_all_is_refused(root: str, raw: bytes) -> None:
    with pytest.raises(AuthenticationError, match="makes no sense"):
        load(placed(root, raw))


def test_a_file_that_is_too_large_is_not_read(root: str) -> None:
    path = placed(root, b"")
    os.truncate(path, 2**30)
    with pytest.raises(AuthenticationError, match="1,073,741,824 bytes"):
        load(path)


def test_fields_of_a_later_version_are_ignored(root: str) -> None:
    assert load(placed(root, msgspec.json.encode({**GOOD, "later": [1]}))).connection.port == GOOD["port"]


def test_a_token_carries_all_but_the_directory() -> None:
    connection = cluster(directory="/run/x")
    token = connection.token()
    assert token.startswith("nbray1.")
    assert len(token.split()) == 1
    assert from_token(token + "\n").connection == msgspec.structs.replace(connection, directory="")


@given(junk=st.text(max_size=60))
def test_any_junk_as_a_token_is_one_kind_of_error(junk: str) -> None:
    for token in (junk, "nbray1." + junk):
        with pytest.raises(AuthenticationError, match="makes no sense"):
            from_token(token)


def test_a_token_cut_anywhere_is_refused() -> None:
    token = cluster().token()
    for length in range(len(token)):
        with pytest.raises(AuthenticationError):
            from_token(token[:length])


def test_the_token_is_taken_out_of_the_environment_and_still_known(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    connection = cluster()
    monkeypatch.setenv("NBRAY_TOKEN", connection.token())
    assert find("auto", root) == connection_file.Found(connection, "$NBRAY_TOKEN")
    assert "NBRAY_TOKEN" not in os.environ
    again = from_environment()
    assert again is not None
    assert again.connection == connection


def test_the_secret_shows_in_no_repr() -> None:
    connection = cluster()
    assert connection.secret not in repr(connection)
    assert connection.secret not in repr(connection_file.Found(connection, "x"))
    assert connection.secret not in repr(connection.credentials("x"))


def test_auto_is_the_newest_file(root: str) -> None:
    for port in (1000, 1001, 1002):
        path = write(cluster(port), root)
        os.utime(path, ns=(port, port))
    assert find("auto", root).connection.port == 1002
    assert [f.connection.port for f in known(root)] == [1002, 1001, 1000]


def test_auto_without_any_cluster_says_how_to_start_one(root: str) -> None:
    with pytest.raises(ConnectionError, match="nbray start --head"):
        find("auto", root)


def test_an_address_finds_the_file_of_its_host_and_port(root: str) -> None:
    for host in ("10.0.0.1", "10.0.0.2"):
        write(cluster(6379, host), root)
    assert find("10.0.0.2:6379", root).connection.host == "10.0.0.2"
    assert find("localhost:6379", root).connection.port == 6379
    with pytest.raises(ConnectionError, match=r"no connection file for 10\.0\.0\.3:6379"):
        find("10.0.0.3:6379", root)
    with pytest.raises(ConnectionError, match="no connection file for localhost:1"):
        find("localhost:1", root)


def test_a_token_serves_an_address_with_its_port_and_no_other(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.setenv("NBRAY_TOKEN", cluster(6379).token())
    assert find("gate.example:6379", root).connection.address == "gate.example:6379"
    with pytest.raises(ConnectionError, match=r"NBRAY_TOKEN is for 10\.0\.0\.1:6379"):
        find("10.0.0.1:6380", root)
    write(cluster(6380), root)
    assert find("10.0.0.1:6380", root).connection.port == 6380


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x", "ho st:1", "host:\u0661", "h\n:1"]
)
def test_what_is_no_address_is_called_that(address: str, root: str) -> None:
    with pytest.raises(ConnectionError, match="is no address"):
        find(address, root)


def test_a_path_or_a_token_is_taken_as_it_is(root: str) -> None:
    connection = cluster()
    path = write(connection, root)
    assert find(path, root).source == path
    assert find(connection.token(), root).connection == connection


def test_ipv6_addresses_are_written_with_brackets() -> None:
    connection = cluster(host="fe80::1")
    assert connection.address == "[fe80::1]:6379"
    assert connection_file.split_address(connection.address) == ("fe80::1", 6379)
