"""What only a GPU reaches is named where operators read: nothing stays unexecuted here without saying so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "inference.md"
FILES = [*sorted((ROOT / "inference").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("_*.py"))]


def that_know_devices(file: Path) -> Iterator[str]:
    """Functions and constants of a module that tell a CPU from a GPU or call `torch.cuda`, docstrings aside."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if any(_is_about_devices(inner) for statement in body for inner in ast.walk(statement)):
                yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value and node.col_offset == 0:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if any(_is_about_devices(inner) for inner in ast.walk(node.value)):
                yield ast.unparse(target)


def _is_about_devices(node: ast.AST) -> bool:
    return (isinstance(node, ast.Constant) and node.value in ("cuda", "cpu")) or (
        isinstance(node, ast.Attribute) and node.attr == "cuda"
    )


def test_all_code_that_knows_of_a_gpu_is_named_in_the_guide() -> None:
    found = {f"`{file.stem}.{name}`" for file in FILES for name in that_know_devices(file)}
    assert len(found) > 5
    guide = GUIDE.read_text(encoding="utf-8")
    assert {name for name in found if name not in guide} == set()
