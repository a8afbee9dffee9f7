"""A login in front of Dagster's UI."""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from tests.conftest import ROOT
from tests.faults.test_secrets import serving

DEPLOY = ROOT / "deploy" / "security"

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class SignIn(BaseHTTPRequestHandler):
    """Stands in for oauth2-proxy: a cookie says which group somebody is of."""

    def do_GET(self) -> None:
        allowed = self.path.partition("allowed_groups=")[2].split(",")
        group = re.findall(r"group=(\w+)", self.headers.get("Cookie", ""))
        self.send_response(202 if set(group) & set(allowed) else 403 if group else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Everything(SignIn):
    """Stands in for the UI; answers with what it was sent."""

    def do_GET(self) -> None:
        body = f"everything {dict(self.headers)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815


class ReadOnly(Everything):
    """Stands in for the second UI."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"read-only")

    do_POST = do_GET  # noqa: N815


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[int]:
    """nginx as configured, on loopback, before stand-ins; its port."""
    if not NGINX:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    key, certificate = tmp_path / "certificate.key", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -keyout {} -out {}"
    subprocess.run(made.format(key, certificate).split(), capture_output=True, check=True)
    text, port = (DEPLOY / "nginx.conf").read_text(), free_port()
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    with serving(SignIn) as sign_in, serving(Everything) as ui, serving(ReadOnly) as view:
        for was, now in [
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("listen 80", f"listen 127.0.0.1:{free_port()}"),
            ("127.0.0.1:4180", f"127.0.0.1:{sign_in}"),
            ("127.0.0.1:3000;", f"127.0.0.1:{ui};"),
            ("127.0.0.1:3001;", f"127.0.0.1:{view};"),
            ("http {", f"http {{\n{temporary}"),
        ]:
            assert was in text
            text = text.replace(was, now)
        (tmp_path / "nginx.conf").write_text(text)
        how = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        checked = subprocess.run([*how, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        server = subprocess.Popen([*how, "-g", "daemon off; master_process off;"], stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port
        finally:
            server.kill()
            server.wait()


@pytest.mark.parametrize(
    ("host", "group", "status", "says"),
    [
        ("dagster.example.org", "operators", 200, "everything"),
        ("dagster.example.org", "viewers", 403, ""),
        ("dagster.example.org", "", 302, ""),
        ("dagster-view.example.org", "viewers", 200, "read-only"),
        ("dagster-view.example.org", "operators", 200, "read-only"),
        ("dagster-view.example.org", "", 302, ""),
        ("elsewhere.example.org", "operators", 421, ""),
    ],
)
def test_nobody_gets_to_the_ui_who_has_not_signed_in(
    proxy: int, host: str, group: str, status: int, says: str
) -> None:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    for method in ("GET", "POST"):
        headers = {"Host": host} | ({"Cookie": f"group={group}"} if group else {})
        with closing(HTTPSConnection("127.0.0.1", proxy, context=unverified, timeout=20)) as connection:
            connection.request(method, "/graphql", headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode()
        assert answer.status == status
        assert says in body
        assert f"group={group}" not in body or not group  # the login's cookie is nothing for the UI
        if status == 302:
            assert answer.headers["Location"].startswith(f"https://{host}/oauth2/start?rd=")
