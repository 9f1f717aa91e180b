"""The door: arguments, refusals, and what importing it does not do."""

import subprocess
import sys
from pathlib import Path

import pytest

import app

ROOT = Path(__file__).resolve().parent.parent


def test_only_this_machine_is_let_in_unless_a_space_asks(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert app.parse_arguments([]).host == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "someone/exhibit")
    assert app.parse_arguments([]).host == "0.0.0.0"
    assert app.parse_arguments(["--host", "127.0.0.1"]).host == "127.0.0.1"


def test_nobody_is_trusted_unless_named():
    assert app.parse_arguments([]).trust == []
    assert app.parse_arguments(["--trust", "one", "--trust", "two"]).trust == ["one", "two"]


def test_door_is_short():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) <= 120


def test_importing_the_door_loads_nothing_heavy():
    code = (
        "import sys, app; sys.exit(' '.join(m for m in ('gradio', 'torch', 'transformers') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "absent.txt"], "absent.txt cannot be read"),
        (["--zoo", "absent.yaml"], "absent.yaml"),
        (["--trust", "no-such"], "no model is called 'no-such'"),
        (["--reports", "no-such"], "no-such: there is no such folder"),
    ],
)
def test_unusable_argument_ends_with_2_and_one_line(arguments, words, capsys):
    assert app.main(arguments) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
