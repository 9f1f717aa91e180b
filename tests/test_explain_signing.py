"""Signed evidence: whatever is changed, removed, added or signed by another shows."""

import hashlib
import json
import shutil

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from explain.__main__ import main
from explain.signing import load_key, sign_bundles, sign_folder, verify_folder
from models.errors import BundleError
from tests.signing_keys import write_key


def _bundle(folder, text="heat"):
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(text)
    files = {"report.html": hashlib.sha256(text.encode()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return folder


@pytest.fixture
def key(tmp_path):
    return load_key(write_key(tmp_path / "key.pem"))


@pytest.fixture
def signed(tmp_path, key):
    """A folder of three bundles, each signed after the one before it."""
    root = tmp_path / "case"
    for name in ("a", "b", "c"):
        sign_folder(_bundle(root / name, name), key)
    return root


def _failures(folder, public=None) -> list[str]:
    return [f"{check.item}: {check.detail}" for check in verify_folder(folder, public) if not check.holds]


def test_whole_folder_holds_alone_and_together(signed):
    assert _failures(signed) == []
    assert _failures(signed / "b") == []
    assert [c.detail for c in verify_folder(signed)][-1] == "3 signed, the last is c"


def test_changed_file_manifest_and_statement_show(signed):
    (signed / "a" / "report.html").write_text("other")
    manifest = signed / "b" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    statement = json.loads((signed / "c" / "signature.json").read_text())
    statement["statement"]["sequence"] = 9
    (signed / "c" / "signature.json").write_text(json.dumps(statement))
    failures = _failures(signed)
    assert "a/report.html: changed" in failures
    assert "manifest of b: changed after it was signed" in failures
    assert "signature of c: does not fit what it is said to sign" in failures


def test_removed_and_added_files_show(signed):
    (signed / "a" / "report.html").unlink()
    (signed / "b" / "more.png").write_bytes(b"x")
    assert _failures(signed) == ["a/report.html: missing", "b/more.png: added: no manifest names it"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_removed_bundle_shows_in_the_chain(signed, name):
    shutil.rmtree(signed / name)
    (failure,) = _failures(signed)
    assert "is missing" in failure


def test_bundle_made_anew_breaks_the_chain(signed, key):
    shutil.rmtree(signed / "b")
    sign_folder(_bundle(signed / "b", "other"), key, signed / "a")
    assert _failures(signed) == ["chain before c: names another one before it"]


def test_removed_signature_shows(signed):
    (signed / "c" / "signature.json").unlink()
    assert _failures(signed) == ["signature of c: missing or damaged"]


def test_run_names_its_last_bundle_so_that_none_can_be_removed(tmp_path, key):
    run = _bundle(tmp_path / "run")
    for name in ("first", "second"):
        _bundle(run / "evidence" / name, name)
    sign_bundles(run, ["second", "first"], key)
    assert _failures(run) == []
    shutil.rmtree(run / "evidence" / "first")
    assert _failures(run) == ["chain before run: number 2 (first) is missing"]


def test_other_key_shows_when_the_right_one_is_given(signed, tmp_path, key):
    public = tmp_path / "public.pem"
    encoding = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(key.public_key().public_bytes(*encoding))
    assert _failures(signed, public) == []
    public.write_bytes(Ed25519PrivateKey.generate().public_key().public_bytes(*encoding))
    assert _failures(signed, public) == [f"signature of {name}: by another key" for name in ("a", "b", "c")]
    sign_folder(_bundle(signed / "d"), Ed25519PrivateKey.generate())
    assert "one key: 2 different keys signed" in _failures(signed)


def test_manifest_that_names_a_file_outside_is_not_followed(tmp_path, key):
    (tmp_path / "secret").write_text("x")
    folder = _bundle(tmp_path / "case" / "a")
    files = {"../../secret": hashlib.sha256(b"x").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    sign_folder(folder, key)
    assert "a/../../secret: missing" in _failures(folder)


def test_key_that_cannot_be_used_is_one_line(tmp_path):
    open_key = write_key(tmp_path / "open.pem")
    open_key.chmod(0o644)
    other = write_key(tmp_path / "other.pem", ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "none.pem").write_text("no key")
    (tmp_path / "none.pem").chmod(0o600)
    for file, words in ((open_key, "chmod"), (other, "another kind"), (tmp_path / "none.pem", "openssl genpkey")):
        with pytest.raises(BundleError, match=words):
            load_key(file)
    with pytest.raises(BundleError, match="No such file"):
        load_key(tmp_path / "missing.pem")


def test_examined_bundle_is_signed_and_verified_by_command(tmp_path, tiny_zoo_file, capsys):
    from tests.signed_pictures import picture

    (tmp_path / "a.jpg").write_bytes(picture())
    key, out = write_key(tmp_path / "key.pem"), tmp_path / "case" / "a"
    command = [
        "examine",
        str(tmp_path / "a.jpg"),
        "--task",
        "deepfake",
        "--model",
        "tiny-resnet",
        "--method",
        "gradcam",
    ]
    command += ["--detector", "none", "--zoo", str(tiny_zoo_file), "--out", str(out), "--sign", str(key)]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["verify-signature", str(out)]) == 0
    assert capsys.readouterr().out.startswith("holds: signature of a")
    (out / "picture.png").write_bytes(b"other")
    assert main(["verify-signature", str(out), "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)
    assert {"item": "a/picture.png", "holds": False, "detail": "changed"} in checks
