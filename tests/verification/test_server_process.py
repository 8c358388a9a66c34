"""A server in a process of its own: checked for what it serves, told when it fails, and ended."""

from pathlib import Path

import pytest

from runtime import read_bundle
from tests.verification.damaged_bundles import change_layer, damaged_bundle
from verification import server_process
from verification.http_client import ServerFault, fetch
from verification.server_process import check_served, free_port, serve_bundle

pytestmark = pytest.mark.slow


def test_a_server_of_another_bundle_is_found_by_its_hash(
    other_port: int, bundle: Path, another: Path
) -> None:
    check_served(other_port, read_bundle(another), "fp32")
    with pytest.raises(ServerFault, match="and not fp32 of"):
        check_served(other_port, read_bundle(bundle), "fp32")
    with pytest.raises(ServerFault, match="and not fp16 of"):
        check_served(other_port, read_bundle(another), "fp16")


def test_a_refused_request_is_told(other_port: int, bundle: Path) -> None:
    with pytest.raises(ServerFault, match="/v1/nothing was answered with status 404"):
        fetch(other_port, "/v1/nothing")
    with pytest.raises(ServerFault, match="/readyz was not answered"):
        fetch(free_port(), "/readyz")


def test_a_server_that_does_not_load_it_is_told_and_ended(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its self-test does not pass; the wait for it ends."""
    servers, stop = [], server_process.stop_server
    monkeypatch.setattr(server_process, "stop_server", lambda server: (servers.append(server), stop(server)))
    copy = read_bundle(damaged_bundle(bundle, tmp_path, change_layer))
    with (
        pytest.raises(ServerFault, match="the models could not be loaded: .*video"),
        serve_bundle(copy, "fp32", num_clients=2),
    ):
        pass
    assert [server.poll() for server in servers] == [0]


def test_a_server_that_ends_is_told(bundle: Path) -> None:
    """0 decode processes are no setting that it takes."""
    with (
        pytest.raises(ServerFault, match="(?s)ended with status 1 before it was ready: .*num_decode_workers"),
        serve_bundle(read_bundle(bundle), "fp32", num_clients=0),
    ):
        pass


def test_a_server_that_is_not_ready_in_time_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "READY_SECONDS", 0.0)
    with (
        pytest.raises(ServerFault, match="not ready within 0 s"),
        serve_bundle(read_bundle(bundle), "fp32", num_clients=2),
    ):
        pass
