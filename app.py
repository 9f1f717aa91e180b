"""Exhibit in the browser: ``python app.py``, then open http://127.0.0.1:7860.

python app.py --port 8000 --zoo my.yaml
python app.py --host 0.0.0.0 --auth accounts.txt --mcp
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from models.errors import ExhibitError

LOGGER = logging.getLogger("exhibit")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--help`` describes it."""
    on_space = "SPACE_ID" in os.environ
    parser = argparse.ArgumentParser(prog="app.py", description="Show why a vision model decided, in the browser.")
    parser.add_argument(
        "--host",
        default="0.0.0.0" if on_space else "127.0.0.1",  # noqa: S104 - a Space is reached through its proxy only
        help="address to listen on; the default lets only this machine in",
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on, 0 for any free one")
    parser.add_argument("--auth", type=Path, metavar="FILE", help="accounts that may log in, lines of user:password")
    parser.add_argument("--zoo", type=Path, metavar="FILE", help="your own models, a YAML file like models/zoo.yaml")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="ID", help="let this model run the code of its repository"
    )
    parser.add_argument("--reports", type=Path, metavar="DIR", help="saved evaluations to show in the Compare tab")
    parser.add_argument(
        "--folder", type=Path, action="append", default=[], metavar="DIR", help="let visitors look into it in Triage"
    )
    parser.add_argument("--mcp", action="store_true", help="serve the page's actions as MCP tools too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted.

    Returns:
        0 when stopped, 2 when the arguments cannot be used.
    """
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Uploads, drawn pictures and bundles lie in one folder that is gone when the server is.
    with tempfile.TemporaryDirectory(prefix="exhibit-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        try:
            serve(arguments)
        except ExhibitError as error:
            sys.stderr.write(f"app.py: {error}\n")
            return 2
        except KeyboardInterrupt:
            return 0
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """Build the services and the page, and block while it is served.

    Raises:
        ExhibitError: if the accounts, the zoo or the address cannot be used.
    """
    if arguments.mcp and importlib.util.find_spec("mcp") is None:
        raise ExhibitError("--mcp needs the package mcp; run `pip install mcp`.")
    from ui.access import read_accounts
    from ui.build import build_app, launch_options
    from ui.services import build_services, import_shared_libraries

    accounts = read_accounts(arguments.auth) if arguments.auth else None
    if accounts is None and arguments.host not in ("127.0.0.1", "localhost", "::1") and "SPACE_ID" not in os.environ:
        LOGGER.warning("Everyone who reaches %s can use this page; --auth FILE asks for a password.", arguments.host)
    import_shared_libraries()
    services = build_services(arguments.zoo, arguments.trust, arguments.reports, arguments.folder)
    page = build_app(services)
    try:
        _, url, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port or _free_port(arguments.host),
            auth=accounts,
            mcp_server=arguments.mcp,
            prevent_thread_lock=True,
            # Else Gradio gives up when its own page needs more than 3 s, as on a busy machine at the first start.
            _frontend=False,
            **launch_options(),
        )
    except OSError as error:
        raise ExhibitError(f"{error}; give another --port, or 0 for any free one.") from error
    LOGGER.info("Exhibit is at %s", url)
    threading.Thread(target=services.warm_up, name="warm-up", daemon=True).start()
    page.block_thread()


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
