"""nginx as a peer for files: over TLS on loopback, with curl as its client; both from the system's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.server import HOST, family_cpu

CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
user {user};
worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
        root {folder}/files;
        client_max_body_size 0;
        location / {{ dav_methods PUT; sendfile on; }}
    }}
}}
"""
START_SECONDS = 10.0


class Nginx:
    """One nginx on `folder`, which is made; stopped by leaving the `with` block."""

    def __init__(self, folder: Path) -> None:
        (folder / "files").mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self._port = probe.getsockname()[1]
        _run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-days", "1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        )
        user = "root" if os.getuid() == 0 else os.environ.get("USER", "nobody")
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, host=HOST, port=self._port, user=user))
        self._process = subprocess.Popen(  # noqa: S603
            [_found("nginx"), "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                self._process.kill()
                raise RuntimeError(f"nginx did not start: {(folder / 'error.log').read_text()}")
            time.sleep(0.05)

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def cpu(self) -> float:
        """Seconds, of all its processes."""
        return family_cpu(self._process.pid)

    def put(self, file: Path) -> None:
        _run("curl", "-skf", "-T", str(file), self._url(file.name))

    def get(self, name: str, to: Path) -> None:
        _run("curl", "-skf", "-o", str(to), self._url(name))
        to.unlink()

    def _url(self, name: str) -> str:
        return f"https://{HOST}:{self._port}/{name}"

    def _answers(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex((HOST, self._port)) == 0


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise RuntimeError(f"{program} is not installed")
    return path


def _run(program: str, *arguments: str) -> None:
    subprocess.run([_found(program), *arguments], check=True, capture_output=True)  # noqa: S603
