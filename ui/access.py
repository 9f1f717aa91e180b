"""Who may open the page: accounts from a file that only its owner can read."""

from __future__ import annotations

import stat
from pathlib import Path

from models.errors import ExhibitError

_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


def read_accounts(file: Path) -> list[tuple[str, str]]:
    """Accounts from lines ``user:password``; empty lines and lines that begin with ``#`` are skipped.

    Args:
        file: UTF-8 text.

    Returns:
        Pairs of user and password, at least one. A password may hold colons.

    Raises:
        ExhibitError: if the file cannot be read, may be read by others, or a line is no account; the message names the
            line and never its content.
    """
    try:
        if file.stat().st_mode & _READABLE_BY_OTHERS:
            raise ExhibitError(f"{file} can be read by other users of this machine; run `chmod 600 {file}`.")
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ExhibitError(f"{file} cannot be read ({error.strerror}); give a file of lines user:password.") from error
    except UnicodeDecodeError as error:
        raise ExhibitError(f"{file} is not UTF-8 text; give a file of lines user:password.") from error
    accounts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        user, colon, password = line.strip().partition(":")
        if not (user and colon and password):
            raise ExhibitError(f"{file}, line {number}: not of the form user:password.")
        if user in accounts:
            raise ExhibitError(f"{file}, line {number}: this user has an account already.")
        accounts[user] = password
    if not accounts:
        raise ExhibitError(f"{file} holds no account; write one per line as user:password.")
    return list(accounts.items())
