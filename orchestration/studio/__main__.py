"""``make studio``: serve the studio until it is interrupted. ``python -m orchestration.studio``."""

import os
import signal
import socket
import sys

import uvicorn

from libs.errors import OneToAllError, SettingsError
from libs.settings import load_settings
from libs.settings.studio import StudioSettings, load_studio_settings
from libs.storage.backends.factory import store_from_settings
from orchestration.laptop.instance import prepare_dagster_home
from orchestration.studio.app import create_app
from orchestration.studio.clips import Clips
from orchestration.studio.runs import InstanceOfRuns

_END_WITHIN = 3
"""Seconds that answers on their way have when the studio ends; who watches a request comes back by itself."""


def main() -> None:
    """Serve at STUDIO_HOST and STUDIO_PORT."""
    try:
        studio = load_studio_settings()
        settings = load_settings()
        if not os.environ.get("DAGSTER_HOME"):
            prepare_dagster_home(settings)
        clips = Clips(settings, store_from_settings(settings), InstanceOfRuns().open)
        listener = _listener(studio)
    except OneToAllError as error:
        sys.exit(f"error: {error}")
    if "--quiet" not in sys.argv[1:]:  # `make ui` has said it
        print(f"Studio: {studio.on_port(listener.getsockname()[1])}  (Ctrl-C stops it)", flush=True)
    config = uvicorn.Config(
        create_app(clips, studio),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is where the connection comes from, never what a header says
        timeout_graceful_shutdown=_END_WITHIN,
    )
    server = uvicorn.Server(config)
    # A program started in the background would inherit interrupts as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server.run(sockets=[listener])


def _listener(studio: StudioSettings) -> socket.socket:
    """A socket that listens, before anything is printed.

    Raises:
        SettingsError: the address or the port cannot be used.
    """
    try:
        return socket.create_server(
            (studio.studio_host, studio.studio_port),
            family=socket.AF_INET6 if ":" in studio.studio_host else socket.AF_INET,
            reuse_port=False,
        )
    except OSError as error:
        raise SettingsError(
            f"STUDIO_HOST={studio.studio_host}, STUDIO_PORT={studio.studio_port} cannot be used "
            f"({error.strerror or error}): try `STUDIO_PORT=3101 make studio`"
        ) from None


if __name__ == "__main__":
    main()
