"""A PostgreSQL and an S3 server of one's own on loopback, for tests and benchmarks.

Belongs here: starting and stopping them. Does not belong here: what is asked of them.
"""

from __future__ import annotations

import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "lake"
_SECONDS_TO_START = 60.0


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs: on the PATH, or where Debian has them; none if it is not there."""
    found = shutil.which("initdb")
    folders = [
        *([Path(found).parent] if found else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    ]
    needed = ("initdb", "postgres", "pg_isready", "psql")
    return next((folder for folder in folders if all((folder / name).exists() for name in needed)), None)


def why_no_postgres() -> str:
    """Why no PostgreSQL can be started here; empty where one can."""
    if postgres_programs() is None:
        return "PostgreSQL's server programs are not installed (apt-get install postgresql)"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def _unprivileged() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


@dataclass
class Postgres:
    """A server that is running; stopping and starting it again keeps its data."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    def address(self, database: str) -> str:
        """The connection string, without the password."""
        return f"dbname={database} host=127.0.0.1 port={self.port} user=saerl"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        programs = postgres_programs()
        assert programs is not None
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
                stdout=log,
                stderr=log,
                **_as_user(),
            )
        until = time.monotonic() + _SECONDS_TO_START
        while subprocess.run(
            [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends every session and the server."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def ask(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """What psql answers: rows of texts."""
        programs = postgres_programs()
        assert programs is not None
        done = subprocess.run(
            [
                programs / "psql",
                "-X",
                "-A",
                "-t",
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-U",
                "saerl",
                database,
                "-c",
                statement,
            ],
            env=os.environ | {"PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.split("|") for line in done.stdout.splitlines()]

    def database(self, name: str) -> str:
        """Makes a database; returns its connection string."""
        self.ask(f'CREATE DATABASE "{name}"')
        return self.address(name)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A new server with a superuser `saerl`, whose password is in no file and no setting."""
    programs = postgres_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="saerl-postgres-"))  # pytest's own folders are closed to other users
    server = Postgres(folder, free_port(), secrets.token_urlsafe(12))
    try:
        said = folder / "password"
        said.write_text(server.password)
        owner = _unprivileged()
        if os.geteuid() == 0 and owner is not None:
            for path in (folder, said):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        subprocess.run(
            [
                programs / "initdb",
                "-D",
                folder / "data",
                "-U",
                "saerl",
                "-A",
                "scram-sha-256",
                "--pwfile",
                said,
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            **_as_user(),
        )
        said.unlink()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _as_user() -> dict[str, Any]:
    owner = _unprivileged()
    return (
        {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}
        if os.geteuid() == 0 and owner
        else {}
    )


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_s3() -> Iterator[dict[str, str]]:
    """An S3 server with the bucket `BUCKET`; the variables by which clients find it, keys included."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "AKIALOOPBACK",
            "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(12),
            "AWS_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=found["AWS_ENDPOINT_URL"],
            aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
            region_name=found["AWS_REGION"],
        )
        client.create_bucket(Bucket=BUCKET)
        yield found
    finally:
        server.stop()
