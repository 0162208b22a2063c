"""Servers that do not answer, or refuse, through the command line; the stand-in is services/kfp_server.py."""

import socket
from pathlib import Path

import pytest

from aupair.errors import AuthError, ParamsError
from aupair.kubeflow import runs, server
from conftest import Command, Outcome
from services.kfp_server import HTML, JSON, REDIRECT, Answer, KfpServer, kfp_server
from services.tls import self_signed

pytestmark = pytest.mark.usefixtures("clean_environment")

SECRET = "eyJ-a-token-that-nobody-may-see"


def submit(aupair: Command, path: Path, *options: object) -> Outcome:
    """Submit a file with a source."""
    return aupair("pipeline", "submit", path, "--param", "source=s3://bucket/data", *options)


def closed_port() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


ANSWERS: dict[str, tuple[Answer, int, list[str]]] = {
    "a login page": (HTML, 6, ["this is a login page", "--token-file"]),
    "a redirect": (REDIRECT, 6, ["a redirect to https://login.example.org/dex/auth;", "--token-file"]),
    "who": ((401, JSON, '{"message": "who are you"}'), 6, ["not accept these", "who are you", "--token-file"]),
    "forbidden": ((403, {}, "RBAC: access denied"), 6, ["not allowed to read the server's health", "--token-file"]),
    "elsewhere": ((404, {}, "<h1>Not Found</h1>"), 8, ["HTTP 404", "/pipeline"]),
    "another API": (
        (200, JSON, '{"status": "ok"}'),
        8,
        ["the server is not a Kubeflow Pipelines API", "JSON with status"],
    ),
    "not ready": ((503, {"Retry-After": "60"}, "upstream error"), 8, ["not ready", "HTTP 503", "try again"]),
    "half ready": ((200, JSON, '{"apiServerReady": false}'), 8, ["behind the web UI", "try again"]),
    "broken": ((500, JSON, '{"error": "no database"}'), 8, ["HTTP 500: no database"]),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_each_refusal_has_its_message_and_exit_code(
    kfp: KfpServer, files: dict[str, Path], aupair: Command, case: str
) -> None:
    kfp.always, code, messages = ANSWERS[case]
    done = submit(aupair, files["plain"], "--host", kfp.url)
    assert done.code == code
    assert all(message in done.line for message in messages), done.line
    assert "very-secret" not in done.err
    assert not done.out
    assert len(kfp.requests) == 1, "the health probe alone"


def test_a_server_that_wants_https_is_not_called_a_login_page(
    kfp: KfpServer, files: dict[str, Path], aupair: Command
) -> None:
    kfp.always = (301, {"Location": kfp.url.replace("http:", "https:") + "/apis/v2beta1/healthz"}, "")
    done = submit(aupair, files["plain"], "--host", kfp.url)
    assert done.code == 8
    assert f"pass --host https{kfp.url[4:]}" in done.line


def test_a_server_that_does_not_answer(files: dict[str, Path], aupair: Command) -> None:
    hosts = {closed_port(): "Connection refused", "http://kfp.invalid": "got "}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts[f"http://127.0.0.1:{silent.getsockname()[1]}"] = "timed out"
        for host, message in hosts.items():
            done = submit(aupair, files["plain"], "--host", host)
            assert done.code == 7, done.err
            assert message in done.line
            assert "check http or https in --host" in done.line


def test_tls_is_verified_and_an_authority_can_be_given(
    tmp_path: Path, files: dict[str, Path], aupair: Command, kfp: KfpServer
) -> None:
    certificate, words = self_signed(tmp_path / "own.pem"), tmp_path / "words.pem"
    words.write_text("no certificate")
    with kfp_server(certificate) as safe:
        done = submit(aupair, files["plain"], "--host", safe.url)
        assert done.code == 7
        assert all(words in done.line for words in ("self-signed certificate", "--ca-cert"))
        assert not safe.requests
        assert submit(aupair, files["plain"], "--host", safe.url.replace("https", "http")).code == 7
        assert submit(aupair, files["plain"], "--host", safe.url, "--ca-cert", certificate).code == 0
        for path in (tmp_path / "none.pem", words):
            done = submit(aupair, files["plain"], "--host", safe.url, "--ca-cert", path)
            assert done.code == 2
            assert path.name in done.line
    done = submit(aupair, files["plain"], "--host", kfp.url.replace("http", "https"))
    assert (done.code, "check http or https" in done.line) == (7, True), "a server without TLS"


@pytest.mark.parametrize("origin", ["variable", "file", "pod"])
def test_the_token_is_sent_and_never_shown(
    tmp_path: Path,
    files: dict[str, Path],
    aupair: Command,
    monkeypatch: pytest.MonkeyPatch,
    kfp: KfpServer,
    origin: str,
) -> None:
    kfp.token, options = SECRET, ["--host", kfp.url]
    (tmp_path / "token").write_text(SECRET + "\n")
    if origin == "variable":
        monkeypatch.setenv("KFP_TOKEN", SECRET)
    elif origin == "file":
        options += ["--token-file", str(tmp_path / "token")]
    else:
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(server, "_POD_HOST", kfp.url)
        options = []
    accepted = submit(aupair, files["plain"], "--wait", *options)
    assert accepted.code == 0, accepted.err
    assert {request.headers["Authorization"] for request in kfp.requests} == {f"Bearer {SECRET}"}
    kfp.token = "another"  # this server's refusal repeats the token that it got
    refused = submit(aupair, files["plain"], *options)
    assert refused.code == 6
    assert "Bearer ***" in refused.err
    shown = [accepted.out, accepted.err, refused.out, refused.err, repr(server.find_server(kfp.url))]
    assert SECRET not in "".join(shown) + aupair("pipeline", "submit", "--help").out


def test_a_pods_token_is_read_again_for_each_request(tmp_path: Path, kfp: KfpServer) -> None:
    kfp.token = SECRET
    (tmp_path / "token").write_text(SECRET)
    connection = server.Connection(server.find_server(kfp.url, token_file=tmp_path / "token"))
    kfp.token = "renewed"
    (tmp_path / "token").write_text("renewed")
    assert runs.schedule_ids(connection, "nightly") == []


def test_a_sessions_cookie_is_sent(
    files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch, kfp: KfpServer
) -> None:
    monkeypatch.setenv("KFP_COOKIE", "oauth2_proxy_kubeflow=abc")
    assert submit(aupair, files["plain"], "--host", kfp.url).code == 0
    assert {request.headers["Cookie"] for request in kfp.requests} == {"oauth2_proxy_kubeflow=abc"}


@pytest.mark.parametrize("answer", [HTML, REDIRECT])
def test_a_session_that_ends_later_is_no_empty_answer(kfp: KfpServer, answer: Answer) -> None:
    connection = server.Connection(server.find_server(kfp.url))
    kfp.always = answer
    with pytest.raises(AuthError, match="login page"):
        runs.schedule_ids(connection, "nightly")
    assert len(kfp.requests) == 2


def test_a_proxy_of_the_environment_is_used(
    files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch, kfp: KfpServer
) -> None:
    monkeypatch.setenv("http_proxy", kfp.url)
    assert submit(aupair, files["plain"], "--host", "http://kfp.invalid").code == 0
    assert {request.headers["Host"] for request in kfp.requests} == {"kfp.invalid"}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", "pass --host"),
        ("localhost:8080", "expected http(s)://HOST"),
        ("https://user:hidden@kfp.example.org", "a URL with a user in it"),
        ("http://[::1", "expected http(s)://HOST"),
    ],
)
def test_a_wrong_host_is_wrong_usage(files: dict[str, Path], aupair: Command, host: str, message: str) -> None:
    done = submit(aupair, files["plain"], "--host", host)
    assert done.code == 2
    assert message in done.line
    assert "hidden" not in done.line


def test_a_server_for_many_users_needs_the_right_namespace(
    files: dict[str, Path], aupair: Command, kfp: KfpServer
) -> None:
    kfp.namespace = "mine"
    done = submit(aupair, files["plain"], "--host", kfp.url)
    assert (done.code, "--namespace" in done.line) == (2, True)
    done = submit(aupair, files["plain"], "--host", kfp.url, "--namespace", "theirs")
    assert (done.code, "theirs is not theirs" in done.line) == (6, True)
    assert submit(aupair, files["plain"], "--host", kfp.url, "--namespace", "mine").code == 0
    kfp.namespace = ""  # on a server for one user, none is sent
    kfp.requests.clear()
    assert submit(aupair, files["plain"], "--host", f"{kfp.url}/#/runs", "--namespace", "mine").code == 0
    assert not any(request.query.get("namespace") or (request.body or {}).get("namespace") for request in kfp.requests)


def test_a_token_file_must_hold_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(ParamsError, match=str(path)):
            server.Connection(server.find_server("http://127.0.0.1:1", token_file=path))


@pytest.mark.parametrize("name", ["KFP_TOKEN", "KFP_COOKIE"])
def test_a_secret_that_no_header_may_hold_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hunter2\nhunter3")
    with pytest.raises(ParamsError, match=f"the secret cannot be used: in {name}") as caught:
        server.find_server("http://127.0.0.1:9")
    assert "hunter" not in str(caught.value)
