"""Files from mirrors: each fetched whole and checked by SHA-256 before it has its name, or not at all.

pooch keeps a download in a temporary file until its checksum is right; here stands what a server may do until
then: for how long, how many bytes, and to which addresses it may send us. Certificates are always checked.
The proxies are those of the environment, such as HTTPS_PROXY, as the library requests reads them.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from nnlite.errors import NnliteError

STALL = 30.0  # seconds without a byte
PATIENCE = 300.0  # seconds for one file from one mirror
REDIRECTS = 5


def cache_folder() -> Path:
    """Return nnlite's folder in the user's cache."""
    import pooch

    return Path(pooch.os_cache("nnlite"))


def fetch(name: str, mirrors: Sequence[str], size: int, sha256: str, folder: Path, advice: str) -> None:
    """Fetch the file `name` of `size` bytes into `folder` from the first mirror that has it, unless it is there.

    mirrors: addresses that end in a slash. NnliteError where none serves the file, or where it is missing and
    NNLITE_OFFLINE is set; the message ends in `advice`.
    """
    import pooch
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    path = folder / name
    if path.is_file() and pooch.file_hash(str(path)) == sha256:
        return
    if os.environ.get("NNLITE_OFFLINE", "0") not in ("", "0"):
        raise NnliteError(f"{name}: NNLITE_OFFLINE is set, so it is not fetched; {advice}")
    failures = []
    for mirror in mirrors:
        try:
            pooch.retrieve(
                mirror + name,
                known_hash=f"sha256:{sha256}",
                fname=name,
                path=folder,
                downloader=lambda url, file, _: Path(file).write_bytes(_download(url, size)),
            )
            return
        except (OSError, ValueError, HTTPError) as error:
            # the messages of requests and urllib3 are long, and may hold the password of a proxy
            reason = type(error).__name__ if isinstance(error, (RequestException, HTTPError)) else error
            failures.append(f"{mirror}: {reason}")
    raise NnliteError(f"{name}: could not be fetched ({'; '.join(failures)}); check the network, or {advice}")


def redirected(url: str, location: str) -> str:
    """Return the address that a server redirects `url` to; NnliteError where it leaves https."""
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
        raise NnliteError(f"it redirects to {target[:100]!r}, which is no https address")
    return target


def _download(url: str, size: int) -> bytes:
    """Return the `size` bytes at `url`, or raise NnliteError within PATIENCE, whatever the server does."""
    # A timeout of a socket starts again with each byte. Only another thread can leave a server that sends, byte by
    # byte, headers without end. What it leaves behind holds no file and ends with the process.
    result: Future[bytes] = Future()

    def work() -> None:
        try:
            result.set_result(_get(url, size))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        content = result.result(PATIENCE)
    except TimeoutError:
        raise NnliteError(f"not complete after {PATIENCE:g} s") from None
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):  # which no file of ours does
        raise NnliteError("it sent a web page, perhaps the login page of a proxy or of a hotel")
    if len(content) != size:
        raise NnliteError(f"expected {size} bytes, it sent {'more' if len(content) > size else len(content)}")
    return content


def _get(url: str, size: int) -> bytes:
    """Return what stands at `url`, but no more than `size` + 1 bytes of it."""
    import requests

    for _ in range(1 + REDIRECTS):
        # the file as it is: a server that takes .gz for an encoding would have it unpacked on the way
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, timeout=STALL, headers=headers, stream=True, allow_redirects=False) as response:
            if response.is_redirect:
                url = redirected(url, response.headers["Location"])
                continue
            if response.status_code != 200:
                raise NnliteError(f"it answered HTTP {response.status_code}")
            content: bytes = response.raw.read(size + 1, decode_content=False)
            return content
    raise NnliteError(f"it redirects more than {REDIRECTS} times")
