"""Content credentials (C2PA): what a picture's own signed history says of it, read without any network."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

__all__ = ["Credentials", "read_credentials"]

Signature = Literal["valid", "invalid", "unreadable", "elsewhere"]

# Only files that hold one of these are given to the library: a store of manifests names itself in plain bytes, and
# one that lies elsewhere is named in the XMP. Looking costs a twentieth of asking.
_MARKS: Final = (b"c2pa", b"dcterms:provenance")
_AI_SOURCES: Final = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
_MIME: Final = {"MPO": "image/jpeg", "JPEG": "image/jpeg"}
_MAX_TEXT: Final = 200


@dataclass(frozen=True)
class Credentials:
    """What the content credentials of a picture say.

    Attributes:
        signature: ``valid``: signed, and neither picture nor claims changed since. ``invalid``: changed, or badly
            signed. ``unreadable``: there are some, but damaged. ``elsewhere``: the file only names an address.
        issuer: whom the certificate names; anybody can make one, so a valid signature proves no identity.
        generator: the program that wrote the claim.
        ai_generated: whether the claims, or those of an ingredient, say that a trained model made (part of) the
            picture; ``None`` when they cannot be read.
    """

    signature: Signature
    issuer: str = ""
    generator: str = ""
    ai_generated: bool | None = None


def read_credentials(original: bytes, container: str) -> Credentials | None:
    """The content credentials in a picture's bytes, after C2PA's specification 2.

    Nothing is fetched: neither manifests that lie elsewhere, nor whether a certificate was withdrawn.

    Args:
        original: the file.
        container: Pillow's name of its format, such as ``JPEG``.

    Returns:
        What they say, or ``None`` when there are none.
    """
    if not any(mark in original for mark in _MARKS):
        return None
    import c2pa

    mime = _MIME.get(container, f"image/{container.lower()}")
    try:
        reader = c2pa.Reader.try_create(mime, io.BytesIO(original), context=_offline())
        if reader is None:
            return None
        with reader:
            store = json.loads(reader.json())
    except (c2pa.C2paError, ValueError) as error:
        # The library has no class of its own for credentials that it was not allowed to fetch.
        return Credentials("elsewhere" if str(error).startswith("Remote") else "unreadable")
    return _summarise(store)


@cache
def _offline() -> Any:  # noqa: ANN401 - the library's own class, loaded only here
    """A context that asks nobody: an investigator's machine must not tell others what it looks at."""
    import c2pa

    return c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})


def _summarise(store: dict[str, Any]) -> Credentials:
    manifests = store.get("manifests") or {}
    active = manifests.get(store.get("active_manifest")) or {}
    generators = active.get("claim_generator_info") or [{}]
    return Credentials(
        signature="invalid" if store.get("validation_state") == "Invalid" else "valid",
        issuer=_text((active.get("signature_info") or {}).get("issuer")),
        generator=_text(" ".join(str(generators[0].get(key) or "") for key in ("name", "version"))),
        ai_generated=any(source in _AI_SOURCES for one in manifests.values() for source in _sources(one)),
    )


def _sources(manifest: dict[str, Any]) -> list[str]:
    """How the actions of one manifest say that the picture came about, without the vocabulary's address."""
    actions = [
        action
        for assertion in manifest.get("assertions") or []
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in (assertion.get("data") or {}).get("actions") or []
    ]
    return [str(action.get("digitalSourceType") or "").rpartition("/")[2] for action in actions]


def _text(value: object) -> str:
    return " ".join(str(value or "").split())[:_MAX_TEXT]
