import pytest

from models.errors import ExhibitError
from ui.access import read_accounts


def account_file(tmp_path, text: str, mode: int = 0o600):
    file = tmp_path / "accounts.txt"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def test_accounts_are_read_and_a_password_may_hold_colons(tmp_path):
    file = account_file(tmp_path, "# team\n\nana:s3cret:with:colons\n  bo:zażółć  \n")
    assert read_accounts(file) == [("ana", "s3cret:with:colons"), ("bo", "zażółć")]


def test_file_that_others_can_read_is_refused_with_the_remedy(tmp_path):
    file = account_file(tmp_path, "ana:secret\n", 0o644)
    with pytest.raises(ExhibitError, match="chmod 600"):
        read_accounts(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ana:one\nnonsense\n", "line 2"),
        ("ana:\n", "line 1"),
        (":secret\n", "line 1"),
        ("ana:one\nana:two\n", "line 2: this user has an account already"),
        ("# nobody\n", "holds no account"),
    ],
)
def test_bad_line_is_named_but_never_quoted(tmp_path, text, words):
    with pytest.raises(ExhibitError, match=words) as caught:
        read_accounts(account_file(tmp_path, text))
    assert "nonsense" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(ExhibitError, match="cannot be read"):
        read_accounts(tmp_path / "absent")
