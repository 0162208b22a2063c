"""Each way in which a server is not there, or says no, through the command line; the stand-in is services/kfp_server.py."""

import json
import socket
from pathlib import Path

import pytest

from aupair.errors import AuthError, ParamsError
from aupair.kubeflow import api, client
from conftest import Command
from services import kfp_server as fake

pytestmark = pytest.mark.usefixtures("nobody")

TOKEN = "eyJ-a-token-that-nobody-may-see"
SOURCE = "source=s3://bucket/data"


def closed_port() -> str:
    """An address that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


JSON = {"Content-Type": "application/json"}
ANSWERS: dict[str, tuple[fake.Answer, int, list[str]]] = {
    "a login page": (fake.HTML, 6, ["this is a login page", "--token-file"]),
    "a redirect": (fake.REDIRECT, 6, ["a redirect to https://login.example.org/dex/auth;", "--token-file"]),
    "who": ((401, JSON, '{"message": "who are you"}'), 6, ["does not know who you are", "who are you", "--token-file"]),
    "forbidden": ((403, {}, "RBAC: access denied"), 6, ["lets nobody in", "--token-file"]),
    "elsewhere": ((404, {}, "<h1>Not Found</h1>"), 8, ["no Kubeflow Pipelines API here", "/pipeline"]),
    "another API": ((200, JSON, '{"status": "ok"}'), 8, ["no Kubeflow Pipelines API here", "JSON with status"]),
    "not ready": ((503, {}, "upstream connect error"), 8, ["not ready", "HTTP 503", "try again"]),
    "half ready": ((200, JSON, '{"apiServerReady": false}'), 8, ["behind the user interface", "try again"]),
    "broken": ((500, JSON, '{"error": "no database"}'), 8, ["HTTP 500: no database"]),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_each_refusal_has_its_words_and_its_code(
    kfp: fake.Server, files: dict[str, Path], aupair: Command, case: str
) -> None:
    kfp.always, code, said = ANSWERS[case]
    done = aupair("pipeline", "submit", files["plain"], "--host", kfp.url, "--param", SOURCE)
    assert done.code == code
    assert all(words in done.line for words in said), done.line
    assert "very-secret" not in done.err
    assert not done.out
    assert len(kfp.requests) == 1, "the probe alone"


def test_a_server_that_wants_https_is_no_login_page(kfp: fake.Server, files: dict[str, Path], aupair: Command) -> None:
    kfp.always = (301, {"Location": kfp.url.replace("http:", "https:") + "/apis/v2beta1/healthz"}, "")
    done = aupair("pipeline", "submit", files["plain"], "--host", kfp.url, "--param", SOURCE)
    assert done.code == 8
    assert f"give --host https{kfp.url[4:]}" in done.line


def test_a_server_that_is_not_there_is_told_by_how(
    files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PROBE_SECONDS", 0.3)
    hosts = {closed_port(): "Connection refused", "http://kfp.invalid": "no such host"}
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hosts[f"http://127.0.0.1:{deaf.getsockname()[1]}"] = "no answer in time"
        for host, said in hosts.items():
            done = aupair("pipeline", "submit", files["plain"], "--host", host, "--param", SOURCE)
            assert done.code == 7, done.err
            assert said in done.line


def test_tls_is_verified_and_an_authority_can_be_given(tmp_path: Path, files: dict[str, Path], aupair: Command) -> None:
    certificate = fake.self_signed(tmp_path / "own.pem")
    with fake.kfp_server(certificate) as kfp:
        command = ["pipeline", "submit", files["plain"], "--param", SOURCE, "--host"]
        done = aupair(*command, kfp.url)
        assert done.code == 7
        assert "self-signed certificate; give --ca-cert" in done.line
        assert not kfp.requests
        done = aupair(*command, kfp.url.replace("https", "http"))
        assert done.code == 7
        assert "http or https" in done.line
        assert aupair(*command, kfp.url, "--ca-cert", certificate).code == 0
        assert aupair(*command, kfp.url, "--ca-cert", tmp_path / "none.pem").code == 2
        other = tmp_path / "words.pem"
        other.write_text("no certificate")
        done = aupair(*command, kfp.url, "--ca-cert", other)
        assert done.code == 2
        assert "words.pem" in done.line


@pytest.mark.parametrize("how", ["variable", "file", "pod"])
def test_the_token_is_sent_and_never_shown(
    tmp_path: Path, files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch, kfp: fake.Server, how: str
) -> None:
    kfp.token, options = TOKEN, ["--host", kfp.url]
    (tmp_path / "token").write_text(TOKEN + "\n")
    if how == "variable":
        monkeypatch.setenv(api.TOKEN, TOKEN)
    elif how == "file":
        options += ["--token-file", str(tmp_path / "token")]
    else:
        monkeypatch.setenv(api.POD_TOKEN, str(tmp_path / "token"))
        monkeypatch.setattr(api, "POD_HOST", kfp.url)
        options = []
    command = ["pipeline", "submit", files["plain"], "--param", SOURCE, "--debug", "--wait", *options]
    done = aupair(*command)
    assert done.code == 0, done.err
    assert {request.headers["Authorization"] for request in kfp.requests} == {f"Bearer {TOKEN}"}
    shown = done.out + done.err
    kfp.token = "another"  # this server's refusal says what it was given
    refused = aupair(*command)
    assert refused.code == 6
    assert "Bearer ***" in refused.err
    help_ = aupair("pipeline", "submit", "--help")
    for text in (shown, refused.out, refused.err, help_.out, repr(api.find(kfp.url))):
        assert TOKEN not in text


def test_a_session_s_cookie_is_sent(
    files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch, kfp: fake.Server
) -> None:
    monkeypatch.setenv(api.COOKIE, "oauth2_proxy_kubeflow=abc")
    assert aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", kfp.url).code == 0
    assert {request.headers["Cookie"] for request in kfp.requests} == {"oauth2_proxy_kubeflow=abc"}


@pytest.mark.parametrize("answer", [fake.HTML, fake.REDIRECT])
def test_a_session_that_ends_on_the_way_is_no_empty_answer(kfp: fake.Server, answer: fake.Answer) -> None:
    server = api.Kfp(api.find(kfp.url))
    kfp.always = answer
    with pytest.raises(AuthError, match="login page"):
        client.scheduled(server, "nightly")
    assert len(kfp.requests) == 2


def test_a_server_without_tls_is_told_so(files: dict[str, Path], aupair: Command, kfp: fake.Server) -> None:
    host = kfp.url.replace("http", "https")
    done = aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", host)
    assert (done.code, "speaks no TLS" in done.line) == (7, True)


def test_a_proxy_of_the_environment_is_used(
    files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch, kfp: fake.Server
) -> None:
    monkeypatch.setenv("http_proxy", kfp.url)
    assert aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", "http://kfp.invalid").code == 0
    assert {request.headers["Host"] for request in kfp.requests} == {"kfp.invalid"}


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "give --host"),
        ("localhost:8080", "expected http(s)://HOST"),
        ("https://user:hidden@kfp.example.org", "a URL with a user in it"),
        ("http://[::1", "expected http(s)://HOST"),
    ],
)
def test_a_host_that_is_none_is_wrong_usage(files: dict[str, Path], aupair: Command, host: str, said: str) -> None:
    done = aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", host)
    assert done.code == 2
    assert said in done.line
    assert "hidden" not in done.line


def test_a_pasted_address_loses_what_the_browser_added() -> None:
    assert api.find("https://kf.example.org/pipeline/#/experiments").host == "https://kf.example.org/pipeline"


def test_a_server_for_many_users_needs_the_right_namespace(
    files: dict[str, Path], aupair: Command, kfp: fake.Server
) -> None:
    kfp.namespace = "mine"
    command = ["pipeline", "submit", files["plain"], "--param", SOURCE, "--host", kfp.url]
    done = aupair(*command)
    assert (done.code, "--namespace" in done.line) == (2, True)
    done = aupair(*command, "--namespace", "theirs")
    assert (done.code, "theirs is not theirs" in done.line) == (6, True)
    assert aupair(*command, "--namespace", "mine").code == 0
    assert not kfp.asked("POST", "runs")[0].query


def test_a_namespace_is_not_asked_of_a_server_with_one_user(
    files: dict[str, Path], aupair: Command, kfp: fake.Server
) -> None:
    done = aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", kfp.url, "--namespace", "mine")
    assert done.code == 0
    assert not any("namespace" in request.query for request in kfp.requests)


def test_debug_shows_the_trace(files: dict[str, Path], aupair: Command) -> None:
    done = aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", closed_port(), "--debug")
    assert done.code == 7
    assert "Traceback" in done.err
    assert "NewConnectionError" in done.err


def test_nothing_in_the_home_folder_is_read_or_written(
    files: dict[str, Path], tmp_path: Path, aupair: Command, kfp: fake.Server
) -> None:
    kfp.namespace = "mine"
    context = tmp_path / ".config" / "kfp" / "context.json"
    context.parent.mkdir(parents=True)
    context.write_text(json.dumps({"namespace": "mine", "client_authentication_cookie": "stale"}))
    done = aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", kfp.url)
    assert done.code == 2, "the namespace in that file is not taken"
    assert not any("Cookie" in request.headers for request in kfp.requests)
    assert json.loads(context.read_text())["client_authentication_cookie"] == "stale"


def test_a_token_file_must_hold_one(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").touch()
        with pytest.raises(ParamsError, match=str(path)):
            api.Kfp(api.find("http://127.0.0.1:1", token_file=path))


@pytest.mark.parametrize("name", ["KFP_TOKEN", "KFP_COOKIE"])
def test_a_secret_that_no_header_may_hold_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hunter2\nhunter3")
    with pytest.raises(ParamsError, match=f"no usable secret: in {name}") as caught:
        api.find("http://127.0.0.1:9")
    assert "hunter" not in str(caught.value)
