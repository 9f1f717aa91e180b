"""Content credentials of pictures that the library's own signer signed."""

import socket

import pytest

from models.credentials import Credentials, read_credentials
from tests.signed_pictures import AI, CAMERA, picture, signed_picture


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("source", "made_by_ai"), [(AI, True), (CAMERA, False)])
def test_signed_picture_says_who_signed_and_how_it_was_made(container, source, made_by_ai):
    found = read_credentials(signed_picture(source, container), container)
    assert found == Credentials("valid", "Exhibit Test", "Test camera 1.0", made_by_ai)


def test_changed_picture_has_an_invalid_signature():
    data = bytearray(signed_picture())
    data[-20] ^= 255
    found = read_credentials(bytes(data), "JPEG")
    assert (found.signature, found.issuer) == ("invalid", "Exhibit Test")


def test_damaged_credentials_are_told_and_stop_nothing():
    data = signed_picture()
    where = data.index(b"c2pa") + 40
    assert read_credentials(data[:where] + bytes(40) + data[where + 40 :], "JPEG") == Credentials("unreadable")


def test_picture_without_credentials_has_none():
    assert read_credentials(picture(), "JPEG") is None
    assert read_credentials(picture(container="PNG") + b"c2pa", "PNG") is None


def test_credentials_at_an_address_are_told_and_never_fetched():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        data = signed_picture(remote=f"http://127.0.0.1:{listener.getsockname()[1]}/x.c2pa")
        assert read_credentials(data, "JPEG") == Credentials("elsewhere")
        with pytest.raises(TimeoutError):
            listener.accept()
