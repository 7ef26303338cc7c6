"""Downloads from mirrors: a file gets its name once it is complete and its SHA-256 is right, or not at all.

pooch knows where caches are. Its downloads were weighed and are not used: they limit neither the bytes nor the total
time, follow redirects from https to plain http, and leave files behind that nobody removes.
Certificates are always checked. Proxies are those of the environment, such as HTTPS_PROXY, as requests reads them.
"""

import hashlib
import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from nnlite.errors import NnliteError
from nnlite.storage.files import new_file, open_file

STALL = 30.0  # seconds without a byte
PATIENCE = 300.0  # seconds for one file from one mirror
REDIRECTS = 5


def cache_folder() -> Path:
    """Return the folder of nnlite in the user's cache; NnliteError where there is no home that it could be in."""
    import pooch

    with suppress(RuntimeError):
        folder = Path(pooch.os_cache("nnlite")).expanduser()
        if folder.is_absolute():
            return folder
    raise NnliteError("cache: no home folder is known; set HOME, or XDG_CACHE_HOME to the folder of all caches")


def fetch(name: str, mirrors: Sequence[str], size: int, sha256: str, folder: Path, advice: str) -> None:
    """Download a file from the first mirror that has it, unless it is in `folder` already.

    NnliteError if no mirror serves it, or if it is missing and NNLITE_OFFLINE is set.

    Arguments:
        name: the name of the file.
        mirrors: addresses that serve it, each ending in a slash.
        size: its size in bytes.
        sha256: its SHA-256, in hexadecimal.
        folder: where it goes.
        advice: how an error message ends.
    """
    path = folder / name
    if _is_there(path, size, sha256):
        return
    if os.environ.get("NNLITE_OFFLINE", "0") not in ("", "0"):
        raise NnliteError(f"{name}: NNLITE_OFFLINE is set, so it is not fetched; {advice}")
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    failures = []
    for mirror in mirrors:
        try:
            content = _download(mirror + name, size)
            found = hashlib.sha256(content).hexdigest()
            if found != sha256:
                raise NnliteError(f"expected SHA-256 {sha256[:12]}, found {found[:12]}")
            with new_file(path, replace=True) as place:
                place.write_bytes(content)
            return
        except (OSError, ValueError, HTTPError) as error:
            # messages of requests and urllib3 are long, and may show the password of a proxy
            reason = type(error).__name__ if isinstance(error, (RequestException, HTTPError)) else error
            failures.append(f"{mirror}: {reason}")
    raise NnliteError(f"{name}: could not be fetched ({'; '.join(failures)}); check the network, or {advice}")


def _is_there(path: Path, size: int, sha256: str) -> bool:
    """Return whether `path` is a file of this size and SHA-256; whatever else is there is looked at no further."""
    try:
        with open_file(path) as file:
            return os.fstat(file.fileno()).st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def redirected(url: str, location: str) -> str:
    """Return the address that a server redirects `url` to; NnliteError if that leaves https."""
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
        raise NnliteError(f"it redirects to {target[:100]!r}, which is not an https address")
    return target


def _download(url: str, size: int) -> bytes:
    """Return the `size` bytes at `url`; NnliteError within PATIENCE, whatever the server does."""
    # The timeout of a socket starts again with each byte, so a server that sends headers byte by byte could keep us for
    # ever. It keeps a thread instead, until its connection is ended from here.
    result: Future[bytes] = Future()
    sockets = _Sockets()

    def work() -> None:
        try:
            result.set_result(_get(url, size, sockets))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, name=url, daemon=True).start()
    try:
        content = result.result(PATIENCE)
    except TimeoutError:
        raise NnliteError(f"not complete after {PATIENCE:g} s") from None
    finally:
        sockets.end()
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):  # no data file begins so
        raise NnliteError("it sent a web page, perhaps the login page of a proxy or of a hotel")
    if len(content) != size:
        raise NnliteError(f"expected {size} bytes, it sent {'more' if len(content) > size else len(content)}")
    return content


class _Sockets:
    """The sockets of a download, which another thread can end: what waits on one fails at once."""

    def __init__(self) -> None:
        self.ended = False
        self.copies: list[socket.socket] = []  # TLS takes over the sockets themselves

    def note(self, one: socket.socket) -> socket.socket:
        """Return a socket that has just been connected, and keep a copy."""
        self.copies.append(one.dup())
        if self.ended:  # while a name was looked up
            self.end()
        return one

    def end(self) -> None:
        """End all connections, those to come as well."""
        self.ended = True
        while self.copies:
            with suppress(OSError), self.copies.pop() as one:
                one.shutdown(socket.SHUT_RDWR)


def _session(sockets: _Sockets) -> Any:
    """Return a session of requests that notes its sockets.

    `_new_conn` is urllib3's own: should it go, no socket is noted, and a thread waits until its server has finished.
    """
    import requests

    class Adapter(requests.adapters.HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **more: Any) -> Any:
            pool: Any = super().get_connection_with_tls_context(*args, **more)

            class Connection(pool.ConnectionCls):  # type: ignore[misc]
                def _new_conn(self) -> socket.socket:
                    return sockets.note(super()._new_conn())

            pool.ConnectionCls = Connection
            return pool

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter())
    return session


def _get(url: str, size: int, sockets: _Sockets) -> bytes:
    """Return the content of `url`, but at most `size` + 1 bytes of it."""
    how: Any = {"timeout": STALL, "stream": True, "allow_redirects": False}
    # the file as it is: a server that calls .gz an encoding would make requests unpack it
    how["headers"] = {"Accept-Encoding": "identity"}
    for _ in range(1 + REDIRECTS):
        with _session(sockets) as session, session.get(url, **how) as response:
            if response.is_redirect:
                url = redirected(url, response.headers["Location"])
                continue
            if response.status_code != 200:
                raise NnliteError(f"it answered HTTP {response.status_code}")
            content: bytes = response.raw.read(size + 1, decode_content=False)
            return content
    raise NnliteError(f"it redirects more than {REDIRECTS} times")
