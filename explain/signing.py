"""Signatures of evidence: who vouches for a manifest, and which manifest came before it.

``manifest.json`` names the SHA-256 of every file beside it. ``signature.json`` holds a statement about that manifest
and its Ed25519 signature (RFC 8032); the statement also names the manifest before it, so that in a folder of bundles a
removed one shows as well as a changed one. What nothing can show is that the last ones were removed; the manifest of a
``triage.py`` run, signed last, names all of its bundles.
"""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Check", "load_key", "sign_bundles", "sign_folder", "verify_folder"]

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "signature.json"
EVIDENCE: Final = "evidence"
_MAKE_KEY: Final = "make one with `openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem`"
_READABLE_BY_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True)
class Check:
    """One thing that was verified.

    Attributes:
        item: what.
        holds: whether it is as it was signed.
        detail: what is wrong, or who signed.
    """

    item: str
    holds: bool
    detail: str = ""


def load_key(file: Path) -> Ed25519PrivateKey:
    """A private key that only its owner can read.

    Args:
        file: PEM, PKCS 8, without a password.

    Raises:
        BundleError: it cannot be read, others can read it too, or it is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if file.stat().st_mode & _READABLE_BY_OTHERS:
            raise BundleError(f"{file} can be read by other users of this machine; run `chmod 600 {file}`.")
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror}); {_MAKE_KEY}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{file} is no private key without a password; {_MAKE_KEY}.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{file} is a key of another kind than Ed25519; {_MAKE_KEY}.")
    return key


def sign_folder(folder: Path, key: Ed25519PrivateKey, previous: Path | None = None) -> Path:
    """Sign the manifest of one folder, as the one after another.

    Args:
        folder: with a ``manifest.json``; a bundle, or a run of ``triage.py``.
        key: who signs.
        previous: the signed folder before it; ``None`` for the newest signed one beside it, if there is any.

    Returns:
        The file of the signature.

    Raises:
        BundleError: there is no manifest, or the disk refuses.
    """
    before = _read_statement(previous) if previous is not None else _newest(folder)
    statement = {
        "name": folder.name,
        "manifest_sha256": _hash(folder / MANIFEST),
        "sequence": before["sequence"] + 1 if before else 1,
        "previous": {"name": before["name"], "manifest_sha256": before["manifest_sha256"]} if before else None,
    }
    signed = {
        "schema_version": 1,
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii"),
        "statement": statement,
        "signature": base64.b64encode(key.sign(_canonical(statement))).decode("ascii"),
    }
    draft = folder / f".{SIGNATURE}"
    try:
        draft.write_text(json.dumps(signed, indent=2) + "\n", encoding="utf-8")
        draft.replace(folder / SIGNATURE)
    except OSError as error:
        raise BundleError(f"{folder / SIGNATURE} cannot be written ({error.strerror}).") from error
    return folder / SIGNATURE


def sign_bundles(folder: Path, names: list[str], key: Ed25519PrivateKey) -> None:
    """Sign a run's bundles one after another in this order, and then the run itself.

    Args:
        folder: of the run, with its manifest.
        names: of its bundles below ``evidence``.
        key: who signs.
    """
    for name in names:
        (folder / EVIDENCE / name / SIGNATURE).unlink(missing_ok=True)
    previous = None
    for name in names:
        previous = sign_folder(folder / EVIDENCE / name, key, previous).parent
    sign_folder(folder, key, previous)


def verify_folder(folder: Path, public_key: Path | None = None) -> list[Check]:
    """See whether signed evidence is as it was signed.

    Args:
        folder: a bundle, a folder of bundles, or a run of ``triage.py``.
        public_key: PEM of whoever should have signed. Without it the checks say only that one and the same key
            signed everything: whoever changed it all could have signed anew.

    Returns:
        What was looked at; a folder without any signature has one check that fails.

    Raises:
        BundleError: there is no such folder, or the key cannot be read.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder; give a bundle, or a folder of bundles.")
    expected = _load_public(public_key).public_bytes_raw() if public_key else None
    below = folder / EVIDENCE if (folder / EVIDENCE).is_dir() else folder
    bundles = sorted(one.parent for one in below.glob(f"*/{MANIFEST}"))
    folders = [*bundles, *([folder] if (folder / MANIFEST).is_file() else [])]
    if not folders:
        return [Check(str(folder), holds=False, detail="there is no manifest in it")]
    checks = [check for one in folders for check in _verify_one(one, expected)]
    checks += _verify_chain(folders) if len(folders) > 1 else []
    keys = {signed["public_key"] for one in folders if (signed := _read_signature(one))}
    if len(keys) > 1:
        checks.append(Check("one key", holds=False, detail=f"{len(keys)} different keys signed"))
    return checks


def _verify_one(folder: Path, expected: bytes | None) -> Iterator[Check]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    name = folder.name
    signed = _read_signature(folder)
    if signed is None:
        yield Check(f"signature of {name}", holds=False, detail="missing or damaged")
        return
    try:
        raw = base64.b64decode(signed["public_key"], validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(
            base64.b64decode(signed["signature"], validate=True), _canonical(signed["statement"])
        )
    except (InvalidSignature, ValueError):
        yield Check(f"signature of {name}", holds=False, detail="does not fit what it is said to sign")
        return
    if expected is not None and raw != expected:
        yield Check(f"signature of {name}", holds=False, detail="by another key")
        return
    yield Check(f"signature of {name}", holds=True, detail=f"key {hashlib.sha256(raw).hexdigest()[:16]}")
    if signed["statement"]["manifest_sha256"] != _hash(folder / MANIFEST):
        yield Check(f"manifest of {name}", holds=False, detail="changed after it was signed")
        return
    yield from _verify_files(folder)


def _verify_files(folder: Path) -> Iterator[Check]:
    """Every file that the manifest names, and those that it does not name."""
    named: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("files", {})
    wrong = 0
    for name, digest in named.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            problem = "missing"
        elif _hash(path) != digest:
            problem = "changed"
        else:
            continue
        wrong += 1
        yield Check(f"{folder.name}/{name}", holds=False, detail=problem)
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        own = inside.as_posix() in (MANIFEST, SIGNATURE) or inside.as_posix() in named
        if path.is_file() and not own and inside.parts[0] != EVIDENCE and not path.name.startswith("."):
            wrong += 1
            yield Check(f"{folder.name}/{inside.as_posix()}", holds=False, detail="added: no manifest names it")
    if not wrong:
        yield Check(f"files of {folder.name}", holds=True, detail=f"{len(named)} as they were")


def _verify_chain(folders: list[Path]) -> Iterator[Check]:
    """Each names the one before it, and none is missing between the first and the last."""
    statements = sorted(
        (signed["statement"] for one in folders if (signed := _read_signature(one))), key=lambda one: one["sequence"]
    )
    before: dict[str, Any] | None = None
    whole = True
    for statement in statements:
        number, previous = statement["sequence"], statement["previous"]
        if number != (before["sequence"] + 1 if before else 1):
            named = f" ({previous['name']})" if previous else ""
            detail = f"number {number - 1}{named} is missing"
            whole = False
            yield Check(f"chain before {statement['name']}", holds=False, detail=detail)
        elif (previous or {}).get("manifest_sha256") != (before["manifest_sha256"] if before else None):
            whole = False
            yield Check(f"chain before {statement['name']}", holds=False, detail="names another one before it")
        before = statement
    if before is not None and whole:
        yield Check("chain", holds=True, detail=f"{len(statements)} signed, the last is {before['name']}")


def _newest(folder: Path) -> dict[str, Any] | None:
    """The statement with the highest number among the folders beside one."""
    beside = (one.parent for one in folder.resolve().parent.glob(f"*/{SIGNATURE}") if one.parent.name != folder.name)
    found = [signed["statement"] for one in beside if (signed := _read_signature(one))]
    return max(found, key=lambda one: one["sequence"], default=None)


def _read_statement(folder: Path) -> dict[str, Any]:
    signed = _read_signature(folder)
    if signed is None:
        raise BundleError(f"{folder} is not signed; sign it before what comes after it.")
    statement: dict[str, Any] = signed["statement"]
    return statement


def _read_signature(folder: Path) -> dict[str, Any] | None:
    """The signature beside a manifest, or ``None`` when there is none that has the form of one."""
    try:
        signed = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
        statement = signed["statement"]
        texts = (signed["public_key"], signed["signature"], statement["name"], statement["manifest_sha256"])
        previous = statement["previous"]
        good = all(isinstance(text, str) for text in texts) and isinstance(statement["sequence"], int)
        good = good and (previous is None or isinstance(previous["name"], str))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return signed if good else None


def _load_public(file: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    how = "make it with `openssl pkey -in key.pem -pubout -out public.pem`"
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror}); {how}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{file} is no public key; {how}.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{file} is a key of another kind than Ed25519; {how}.")
    return key


def _hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror}); give a whole bundle.") from error


def _canonical(statement: dict[str, Any]) -> bytes:
    """The same bytes for the same statement, whoever wrote the JSON."""
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
