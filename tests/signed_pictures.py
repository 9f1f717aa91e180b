"""Pictures with content credentials, signed by the library's own signer with a certificate made here."""

from __future__ import annotations

import datetime as dt
import io
import json

from PIL import Image

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def picture(seed: int = 0, container: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").rotate(seed).resize((64, 64)).convert("RGB").save(buffer, container)
    return buffer.getvalue()


def signed_picture(source: str = AI, container: str = "JPEG", remote: str | None = None) -> bytes:
    """A picture whose credentials say that it was created from such a source; at ``remote`` only, if given."""
    import c2pa

    claims = {
        "claim_generator_info": [{"name": "Test camera", "version": "1.0"}],
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": source}]},
            }
        ],
    }
    builder = c2pa.Builder(json.dumps(claims))
    if remote:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    signed = io.BytesIO()
    builder.sign(_signer(), f"image/{container.lower()}", io.BytesIO(picture(container=container)), signed)
    return signed.getvalue()


def _signer():
    import c2pa
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def name(common: str) -> x509.Name:
        pairs = ((NameOID.ORGANIZATION_NAME, "Exhibit Test"), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(*pair) for pair in pairs])

    def certify(key, common: str, *, authority: bool) -> bytes:
        usage = {
            "content_commitment": False,
            "key_encipherment": False,
            "data_encipherment": False,
            "key_agreement": False,
            "encipher_only": False,
            "decipher_only": False,
        }
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(name("Root"))
            .public_key(key.public_key())
            .serial_number(1 + authority)
            .not_valid_before(now - day)
            .not_valid_after(now + 100 * day)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        )
        if not authority:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    chain = certify(leaf, "Signer", authority=False) + certify(root, "Root", authority=True)
    private = leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", chain, private, None))
