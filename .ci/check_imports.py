"""Imports run one way (app > ui > explain.examination > explain.*, rag > models); some libraries stay in one file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("models", "explain", "rag", "training", "ui", "bulk", "triage", "app", "benchmarks")
# Room -> rooms it may import besides itself.
ALLOWED = {
    "models": set(),
    "explain": {"models"},
    "rag": {"models"},
    "training": {"models"},
    "ui": {"bulk", "explain", "rag", "models"},
    "bulk": {"explain", "models"},
    "triage": {"bulk", "explain", "rag", "models"},
    "app": {"ui", "explain", "rag", "models"},
    "benchmarks": {"ui", "explain", "rag", "models", "training", "bulk", "triage", "app"},
}
# Library -> where it may stand.
LIBRARY_HOMES = {
    "gradio": ("app.py", "ui/"),
    "ray": ("bulk/cluster.py",),
    "ultralytics": ("models/detector.py", "training/detector.py"),
    "captum": ("explain/attribution.py", "explain/attribution_maps.py"),
    "pytorch_grad_cam": ("explain/cam.py", "benchmarks/", "tests/"),
    "lancedb": ("rag/index.py",),
}
# Only these compose the rest of the room, and may know ``rag``; the others must not know them.
COMPOSERS = (
    "explain.claims_asking",
    "explain.examination",
    "explain.examination_schema",
    "explain.bundle",
    "explain.report",
    "explain.replay",
    "explain.sanity_asking",
    "explain.stability_asking",
    "explain.whatif_asking",
    "explain.__main__",
)


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def violations(path: Path, root: Path) -> Iterator[str]:
    """Every import of one file that breaks the order."""
    relative = path.relative_to(root).as_posix()
    room = relative.split("/")[0].removesuffix(".py")
    module = relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        top = name.split(".")[0]
        where = f"{relative}:{line}"
        allowed = ALLOWED.get(room, set()) | ({"rag"} if module in COMPOSERS else set())
        if room in ALLOWED and top in ROOMS and top != room and top not in allowed:
            yield f"{where}: {room} must not import {name}"
        if room == "explain" and module not in COMPOSERS and name.startswith(COMPOSERS):
            yield f"{where}: only the page and commands know {name}"
        homes = LIBRARY_HOMES.get(top)
        if homes and not relative.startswith(homes) and room != "tests":
            yield f"{where}: {top} belongs in {' or '.join(homes)}"


def main() -> int:
    """Print every violation; exit 1 if there is one."""
    root = Path(__file__).resolve().parent.parent
    files = [p for room in ROOMS for p in ((root / room).rglob("*.py") if (root / room).is_dir() else [])]
    files += [p for p in (root / "app.py", root / "triage.py") if p.exists()]
    found = [text for path in sorted(files) for text in violations(path, root)]
    for text in found:
        sys.stdout.write(text + "\n")
    sys.stdout.write(f"imports: {len(files)} files, {len(found)} violations\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
