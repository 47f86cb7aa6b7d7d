"""Small: functions of about ten lines, modules that hold one idea."""

import ast
from pathlib import Path
from statistics import median

SOURCE = Path(__file__).resolve().parents[2] / "src"
MODULES = {str(path.relative_to(SOURCE)): path.read_text() for path in SOURCE.rglob("*.py")}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def sizes() -> dict[str, int]:
    return {
        f"{name}:{node.lineno} {node.name}": body_lines(node)
        for name, text in MODULES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_body_lines():
    (function,) = ast.parse('def f(\n    x,\n):\n    """Doc.\n\n    More.\n    """\n    y = x\n\n    return y\n').body
    assert body_lines(function) == 3


def test_functions_are_small():
    assert median(sizes().values()) <= 10
    assert not {name: n for name, n in sizes().items() if n > (100 if name.endswith(" fit") else 40)}


def test_modules_are_small():
    assert not {name: n for name, text in MODULES.items() if (n := len(text.splitlines())) > 350}
