"""A real PostgreSQL server on this machine: a cluster of its own in a temporary folder, started, stopped and cut off.

PostgreSQL refuses to run as root; then its processes become the system's user ``postgres``. What does not belong here:
what is stored in it.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.fleet.local.fleet_plan import free_port
from tests.waiting import HANG_SECONDS

USER = "dagster"


def find_postgres() -> Path | None:
    """The folder of the programs of the newest installed version; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@dataclass
class PostgresServer:
    """A cluster and its process."""

    programs: Path
    folder: Path
    port: int
    password: str = field(repr=False)
    process: subprocess.Popen | None = field(default=None, repr=False)

    def url(self, database: str = "dagster") -> str:
        """As Dagster's configuration wants it."""
        return f"postgresql+psycopg2://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until connections are taken."""
        command = [
            *(self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=100"),
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **_identity())
        deadline = time.monotonic() + HANG_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if self._run("pg_isready", "--quiet", check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'server.log').read_text()[-2000:]}")

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Stop at once: every connection is cut off, as in a power cut (SIGQUIT), and the next start recovers."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(HANG_SECONDS)

    def query(self, sql: str, database: str = "dagster") -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._cursor(database) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def execute(self, sql: str, database: str = "dagster") -> None:
        """Run statements that give no rows."""
        with self._cursor(database) as cursor:
            cursor.execute(sql)

    def refuse_materialization(self, asset: str, partition: str) -> None:
        """Cut each connection that is about to store this event of Dagster's, until :meth:`take_all_events`."""
        self.execute(
            f"""
            CREATE FUNCTION cut_off() RETURNS trigger AS $$
              BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$ LANGUAGE plpgsql;
            CREATE TRIGGER cut_off BEFORE INSERT ON event_logs FOR EACH ROW WHEN (
              NEW.dagster_event_type = 'ASSET_MATERIALIZATION' AND NEW.asset_key = '["{asset}"]'
              AND NEW.partition = '{partition}') EXECUTE FUNCTION cut_off();
            """
        )

    def take_all_events(self) -> None:
        """Undo :meth:`refuse_materialization`."""
        self.execute("DROP TRIGGER cut_off ON event_logs; DROP FUNCTION cut_off")

    @contextmanager
    def _cursor(self, database: str) -> Iterator[Any]:
        """Of a connection that commits at the end."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname=database
        )
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def create_database(self, name: str) -> None:
        self._run("createdb", name)

    def dump(self, database: str, file: Path) -> None:
        """As docs/operations.md says."""
        self._run("pg_dump", "--format=custom", f"--dbname={database}", stdout=file)

    def restore(self, file: Path, database: str) -> None:
        """Into an empty database, as docs/operations.md says."""
        with file.open("rb") as dump:
            self._run("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={database}", stdin=dump)

    def _run(
        self, program: str, *arguments: str, check: bool = True, stdin: Any = None, stdout: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one of PostgreSQL's programs as a client of the cluster; without ``stdout`` its output is discarded."""
        environment = {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": self.password,
        }
        with (stdout or Path(os.devnull)).open("wb") as output:
            return subprocess.run(
                [self.programs / program, *arguments], env=environment, stdin=stdin, stdout=output, check=check
            )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running cluster with an empty database ``dagster``; nothing is left of it when the block ends."""
    programs = find_postgres()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="one-to-all-postgres-"))
    server = PostgresServer(programs, folder, free_port(), secrets.token_hex(16))
    try:
        (folder / "password").write_text(server.password)
        if identity := _identity():
            for path in (folder, folder / "password"):
                shutil.chown(path, identity["user"], identity["group"])
        subprocess.run(
            [
                *(
                    programs / "initdb",
                    "--pgdata",
                    folder / "data",
                    "--username",
                    USER,
                    "--pwfile",
                    folder / "password",
                ),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            **_identity(),
        )
        server.start()
        server.create_database("dagster")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _identity() -> dict[str, Any]:
    """Arguments of ``subprocess`` that make a process of root one of the user ``postgres``."""
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}
