"""Private keys for tests, in files that only their owner can read."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def write_key(file: Path, key=None) -> Path:
    """A new Ed25519 key, or the one given, as PEM."""
    data = (key or Ed25519PrivateKey.generate()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(data)
    file.chmod(0o600)
    return file
