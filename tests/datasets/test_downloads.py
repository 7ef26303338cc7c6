"""Downloads from servers on this machine that truncate, stall, redirect and lie."""

import hashlib
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlite.datasets import downloads
from nnlite.datasets.catalog import load, locate
from nnlite.datasets.downloads import cache_folder, fetch, redirected
from nnlite.datasets.rotation import rotated
from nnlite.errors import NnliteError

NAME, ADVICE = "file.gz", "put it there by hand"
CONTENT = b"\x1f\x8b" + random.Random(0).randbytes(4998)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

# of 127.0.0.1, signed by itself, valid until 2120
KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgL3RirQ3JvpBJdjjN
6P/Crk4XvkweBEgyTnIousQViPShRANCAATK8siPbXR+rhm8zM8Pkn9npFT8M9c6
ikkTN5Remf8eAyXnYJcAM1Ii51g0v6Ry/0i8pVJsYhghcwAKS1+a1Ppe
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBcDCCARagAwIBAgIBATAKBggqhkjOPQQDAjAWMRQwEgYDVQQDDAtubmxpdGUg
dGVzdDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowFjEUMBIGA1UE
AwwLbm5saXRlIHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATK8siPbXR+
rhm8zM8Pkn9npFT8M9c6ikkTN5Remf8eAyXnYJcAM1Ii51g0v6Ry/0i8pVJsYhgh
cwAKS1+a1Ppeo1MwUTAPBgNVHREECDAGhwR/AAABMA8GA1UdEwEB/wQFMAMBAf8w
DgYDVR0PAQH/BAQDAgKEMB0GA1UdDgQWBBSvNPxK40Jic3/z9TSSE8Yxdq6PBjAK
BggqhkjOPQQDAgNIADBFAiBsML/qCtMFAniJ4M2HZExmEKXEKtcYvp5xtVN/UasU
gQIhAKyHdqWFFkYQJGW2NFWKQ3AS5kC1FzHXJo9RJ3bgahVp
-----END CERTIFICATE-----
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No proxy and no offline setting."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "nnlite_offline", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server(ThreadingHTTPServer):
    """Answers each request by `answer(handler)`, and keeps what was asked for in `asked`."""

    daemon_threads = True

    def __init__(self, answer):
        self.answer, self.asked, self.stopped = answer, [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def handle_error(self, request, address):
        """A client that has heard enough is no error."""

    def stop(self):
        self.stopped.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def url(self, scheme="http", host="127.0.0.1"):
        return f"{scheme}://{host}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def answer(self):
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.answer(self)

    do_GET = do_CONNECT = answer

    def log_message(self, *args):
        """Keep quiet."""

    def send(self, *blocks, every=0.0):
        """Send the blocks as they are, one each `every` seconds, until the server is stopped."""
        for block in blocks:
            self.wfile.write(block)
            if self.server.stopped.wait(every):
                break


@pytest.fixture
def serve():
    """Start a Server."""
    with ExitStack() as stack:

        def start(answer):
            server = Server(answer)
            stack.callback(server.stop)
            return server

        yield start


def raw(*blocks, every=0.0):
    return lambda handler: handler.send(*blocks, every=every)


def reply(body=CONTENT, status="200 OK", headers=""):
    return raw(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


def fetched(folder, *mirrors):
    """Fetch the file, and say whether `folder` then holds it whole, and nothing else."""
    fetch(NAME, mirrors, len(CONTENT), SHA256, folder, ADVICE)
    return [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(NAME, CONTENT)]


# --- servers that mean well


def to(location):
    return reply(b"over there", "302 Found", f"Location: {location}\r\n")


def redirect_twice(handler):
    answers = {"/file.gz": to("a/one"), "/a/one": to("two"), "/a/two": reply()}
    answers[handler.path](handler)


HONEST = {
    "a plain answer": reply(),
    "no length": raw(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT),
    "in chunks": raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + CONTENT[:1000],
        b"\r\nfa0\r\n" + CONTENT[1000:] + b"\r\n0\r\n\r\n",
    ),
    "a .gz file called an encoding": reply(headers="Content-Encoding: gzip\r\n"),
    "a file called a web page": reply(headers="Content-Type: text/html\r\n"),
    "redirects": redirect_twice,
}


@pytest.mark.parametrize("answer", HONEST.values(), ids=HONEST)
def test_an_honest_server_is_believed(serve, tmp_path, answer):
    assert fetched(tmp_path / "cache", serve(answer).url())


def test_a_file_that_is_there_is_not_asked_for_and_a_damaged_one_is_replaced(serve, tmp_path):
    server = serve(reply())
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetched(tmp_path, server.url())
    assert server.asked == []
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert fetched(tmp_path, server.url())
    assert server.asked == ["GET /file.gz"]


# --- servers that lie

PAGE = b"<!DOCTYPE html><html><title>Welcome to our hotel</title></html>"
OK = b"HTTP/1.1 200 OK\r\n"
LIES = {
    "other bytes": (reply(CONTENT[:-1] + b"x"), "expected SHA-256 "),
    "truncated": (raw(OK + b"Content-Length: 5000\r\n\r\n" + CONTENT[:100]), "Incomplete|ProtocolError|sent 100"),
    "truncated, no length": (raw(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT[:100]), "expected 5000 bytes, it sent 100"),
    "truncated chunk": (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + CONTENT[:9]), "ProtocolError"),
    "no chunk": (raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n" + CONTENT), "ProtocolError|InvalidChunk"),
    "empty": (reply(b""), "expected 5000 bytes, it sent 0"),
    "too long": (reply(CONTENT + b"x"), "expected 5000 bytes, it sent more"),
    "endless": (raw(b"HTTP/1.0 200 OK\r\n\r\n", *[bytes(1 << 20)] * 1000), "expected 5000 bytes, it sent more"),
    "a length of 10^30": (raw(OK + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n" + CONTENT[:9]), ""),
    "a length below 0": (raw(OK + b"Content-Length: -1\r\n\r\n" + CONTENT[:9]), "it sent 9"),
    "a web page": (reply(PAGE, headers="Content-Type: text/html\r\n"), "sent a web page.*login page"),
    "a web page called gzip": (reply(PAGE, headers="Content-Type: application/gzip\r\n"), "sent a web page"),
    "a web page of the right size": (reply(PAGE.ljust(len(CONTENT))), "sent a web page"),
    "a web page after a mark and a line": (reply(b"\xef\xbb\xbf\r\n" + PAGE), "sent a web page"),
    "404": (reply(PAGE, "404 Not Found"), "answered HTTP 404"),
    "503": (reply(CONTENT, "503 Service Unavailable"), "answered HTTP 503"),
    "204": (reply(CONTENT, "204 No Content"), "answered HTTP 204"),
    "redirect to a file": (to("file:///etc/passwd"), "redirects to 'file:///etc/passwd', which is not an https"),
    "redirect with a command to the terminal": (
        to("x:\x1b]0;owned\x07"),
        r"redirects to 'x:\\x1b\]0;owned\\x07', which",
    ),
    "redirect to ftp": (to("ftp://127.0.0.1/file.gz"), "not an https address"),
    "redirect to no address": (to("http://[/"), "Invalid IPv6"),
    "nothing": (raw(), "ConnectionError"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "ConnectionError"),
    "endless headers": (raw(OK, *[b"X-Header: 1\r\n"] * 1000), "ConnectionError"),
}
STALLS = {
    "no answer": (raw(b"", every=9), "ReadTimeout"),
    "stops in the headers": (raw(OK, every=9), "ReadTimeout"),
    "stops in the file": (raw(OK + b"Content-Length: 5000\r\n\r\n" + CONTENT[:100], every=9), "ReadTimeout"),
    "drips headers": (raw(OK, *[b"x"] * 5000, every=0.05), "not complete after 1 s"),
    "drips the file": (raw(b"HTTP/1.0 200 OK\r\n\r\n", *[b"x"] * 5000, every=0.05), "not complete after 1 s"),
}


def check_that_it_is_left(liar, honest, folder, words):
    """Check that nothing of what `liar` sends is kept, and that the file then comes from `honest`."""
    with pytest.raises(NnliteError, match=rf"^file\.gz: could not be fetched \({liar.url()}: .*{words}.*{ADVICE}$"):
        fetched(folder, liar.url())
    assert list(folder.iterdir()) == []
    assert fetched(folder, liar.url(), honest.url())
    assert honest.asked == ["GET /file.gz"]


def wait_for_the_thread(server):
    while any(thread.name.startswith(server.url()) for thread in threading.enumerate()):
        time.sleep(0.01)


@pytest.mark.parametrize(("answer", "words"), LIES.values(), ids=LIES)
def test_what_a_lying_server_sends_is_not_kept_and_the_next_mirror_is_asked(serve, tmp_path, answer, words):
    check_that_it_is_left(serve(answer), serve(reply()), tmp_path, words)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("answer", "words"), STALLS.values(), ids=STALLS)
def test_a_server_that_stalls_is_left_in_time(serve, tmp_path, monkeypatch, answer, words):
    monkeypatch.setattr(downloads, "STALL", 0.4)
    monkeypatch.setattr(downloads, "PATIENCE", 1.0)
    liar = serve(answer)
    check_that_it_is_left(liar, serve(reply()), tmp_path, words)
    wait_for_the_thread(liar)


@pytest.mark.timeout(30)
def test_a_connection_that_comes_after_the_time_is_ended_too(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    find = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: time.sleep(1) or find(*args))
    drips = serve(raw(OK, *[b"x"] * 5000, every=0.05))
    with pytest.raises(NnliteError, match=r"not complete after 0\.2 s"):
        fetched(tmp_path, drips.url())
    wait_for_the_thread(drips)


def test_a_slow_server_is_waited_for_while_it_sends(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "STALL", 0.4)
    tenths = [CONTENT[k : k + 500] for k in range(0, 5000, 500)]
    assert fetched(tmp_path, serve(raw(b"HTTP/1.0 200 OK\r\n\r\n", *tenths, every=0.06)).url())


def test_a_circle_of_redirects_is_left_after_five(serve, tmp_path):
    server = serve(to("/file.gz"))
    with pytest.raises(NnliteError, match="redirects more than 5 times"):
        fetched(tmp_path, server.url())
    assert server.asked == ["GET /file.gz"] * 6


def test_a_closed_port_is_not_the_end_and_all_failures_are_named(serve, tmp_path):
    closed, liar = "http://127.0.0.1:9/", serve(reply(b"")).url()
    with pytest.raises(NnliteError, match=f"{closed}: ConnectionError; {liar}: expected 5000 bytes, it sent 0"):
        fetched(tmp_path, closed, liar)


def test_any_answer_gives_the_file_or_an_nnlite_error(serve, tmp_path):
    pieces = [b"HTTP/1.1 200 OK\r\n", b"302", b"\r\n", b"\r\n\r\n", b"Content-Length: 5000", b"Location: ", b"://"]
    pieces += [b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b":", b"\xff", CONTENT]
    server = serve(reply())

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.lists(st.sampled_from(pieces) | st.binary(max_size=9), max_size=12).map(b"".join))
    def holds(sent):
        server.answer = raw(sent)
        (tmp_path / NAME).unlink(missing_ok=True)
        try:
            assert fetched(tmp_path, server.url())
        except NnliteError:
            assert list(tmp_path.iterdir()) == []

    holds()


def test_a_disk_that_cannot_be_written_is_said(serve, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(NnliteError, match=r"File exists|Not a directory"):
        fetched(tmp_path / "cache", serve(reply()).url())


# --- encryption


@pytest.fixture
def pem(tmp_path_factory):
    """A file with the key and the certificate of 127.0.0.1."""
    path = tmp_path_factory.mktemp("tls") / "127.0.0.1.pem"
    path.write_text(KEY_AND_CERTIFICATE)
    return path


@pytest.fixture
def https(serve, pem):
    """Start a Server for https."""

    def start(answer):
        server = serve(answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        return server

    return start


@pytest.mark.parametrize(("trusted", "host"), [(False, "127.0.0.1"), (True, "localhost")])
def test_a_certificate_that_is_unknown_or_of_another_host_is_refused(https, pem, tmp_path, monkeypatch, trusted, host):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    server = https(reply())
    with pytest.raises(NnliteError, match="SSLError"):
        fetched(tmp_path, server.url("https", host))
    assert server.asked == []


def test_a_known_certificate_is_believed_but_no_redirect_away_from_https(https, serve, pem, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    assert fetched(tmp_path / "one", https(reply()).url("https"))
    plain = serve(reply())
    with pytest.raises(NnliteError, match="not an https address"):
        fetched(tmp_path / "two", https(to(plain.url() + NAME)).url("https"))
    assert plain.asked == []


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a.org/x/f", "https://b.org/f", "https://b.org/f"),
        ("https://a.org/x/f", "/g", "https://a.org/g"),
        ("https://a.org/x/f", "g", "https://a.org/x/g"),
        ("https://a.org/x/f", "//b.org/g", "https://b.org/g"),
        ("https://a.org/x/f", "HTTPS://b.org/", "https://b.org/"),
        ("http://a.org/f", "https://a.org/f", "https://a.org/f"),
        ("http://a.org/f", "http://b.org/f", "http://b.org/f"),
        ("https://a.org/f", "http://a.org/f", None),
        ("https://a.org/f", "HTTP://a.org/f", None),
        ("https://a.org/f", "file:///etc/passwd", None),
        ("http://a.org/f", "ftp://a.org/f", None),
        ("https://a.org/f", "javascript:alert(1)", None),
    ],
)
def test_redirects_stay_with_https(url, location, target):
    if target:
        assert redirected(url, location) == target
    else:
        with pytest.raises(NnliteError, match="not an https address"):
            redirected(url, location)


# --- what the environment says


def test_offline_means_that_nobody_is_asked(serve, tmp_path, monkeypatch):
    server = serve(reply())
    monkeypatch.setenv("NNLITE_OFFLINE", "1")
    with pytest.raises(NnliteError, match=rf"^file\.gz: NNLITE_OFFLINE is set, .*{ADVICE}$"):
        fetched(tmp_path, server.url())
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(NnliteError, match="NNLITE_OFFLINE"):
        fetched(tmp_path, server.url())
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetched(tmp_path, server.url())
    assert server.asked == []


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_0_means_online(serve, tmp_path, monkeypatch, value):
    monkeypatch.setenv("NNLITE_OFFLINE", value)
    assert fetched(tmp_path, serve(reply()).url())


def test_a_proxy_is_used(serve, tmp_path, monkeypatch):
    proxy = serve(reply())
    monkeypatch.setenv("HTTP_PROXY", proxy.url())
    assert fetched(tmp_path, "http://mirror.invalid/mnist/")
    assert proxy.asked == ["GET http://mirror.invalid/mnist/file.gz"]


def test_a_proxy_of_https_sees_no_more_than_the_host_and_its_password_is_not_shown(serve, tmp_path, monkeypatch):
    proxy = serve(reply(b"", "403 Forbidden"))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url(host="user:secret@127.0.0.1"))
    with pytest.raises(NnliteError, match="ProxyError") as caught:
        fetched(tmp_path, "https://mirror.invalid/mnist/")
    assert proxy.asked == ["CONNECT mirror.invalid:443"]
    assert "secret" not in str(caught.value)


# --- processes that are killed, and processes that meet

CHILD = f"""
import os, sys, time
from pathlib import Path
from nnlite.datasets.downloads import fetch
if "hang" in sys.argv:
    os.replace = lambda *names: (print("moving", flush=True), time.sleep(60))
fetch({NAME!r}, [sys.argv[1]], {len(CONTENT)}, {SHA256!r}, Path(sys.argv[2]), "")
"""


def child(*args):
    command = [sys.executable, "-c", CHILD, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.parametrize("moment", ["while it receives", "before it renames"])
def test_a_killed_process_leaves_no_part_under_the_name(serve, tmp_path, moment):
    half = threading.Event()

    def send_half(handler):
        handler.send(OK + b"Content-Length: 5000\r\n\r\n" + CONTENT[:2500])
        half.set()
        handler.server.stopped.wait(60)

    late = moment == "before it renames"
    process = child(serve(reply() if late else send_half).url(), tmp_path, *["hang"] * late)
    with process:
        assert process.stdout.readline() == "moving\n" if late else half.wait(60)
        process.kill()
    assert not (tmp_path / NAME).exists()
    fetch(NAME, [serve(reply()).url()], len(CONTENT), SHA256, tmp_path, "")
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]  # what the dead one had left is gone


@pytest.mark.timeout(60)
@pytest.mark.parametrize("there", ["a pipe", "a link to a device", "a terabyte", "a folder's link"])
def test_what_is_no_file_of_this_size_is_not_read(serve, tmp_path, there):
    path = tmp_path / NAME
    match there:
        case "a pipe":
            os.mkfifo(path)
        case "a link to a device":
            path.symlink_to("/dev/zero")
        case "a terabyte":
            path.touch()
            os.truncate(path, 1 << 40)  # a hole: it takes no place on the disk
        case _:
            path.symlink_to(tmp_path)
    fetch(NAME, [serve(reply()).url()], len(CONTENT), SHA256, tmp_path, "")
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()


def test_without_a_home_the_variable_to_set_is_named_and_rotations_go_on(monkeypatch, digits, caplog):
    def unknown(*_):
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "NNLITE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(NnliteError, match=r"cache: no home folder is known; set HOME, or XDG_CACHE_HOME"):
        cache_folder()
    with pytest.raises(NnliteError, match="XDG_CACHE_HOME"):
        load("mnist")
    assert locate("mnist") is None
    assert len(rotated(digits.train[:3], (8, 8))) == 15
    assert "going on without" in caplog.text


def test_two_processes_at_once_both_end_well(serve, tmp_path):
    both = threading.Barrier(2)

    def together(handler):
        both.wait(60)
        reply()(handler)

    server = serve(together)
    for process in [child(server.url(), tmp_path) for _ in range(2)]:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert len(server.asked) == 2
    assert fetched(tmp_path)
