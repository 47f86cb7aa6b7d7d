"""Who may import whom: one direction, no circles, and nothing that only reads reaches torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
FLOORS = [  # a part may import the parts on lower floors, and no other on its own
    {"content"},
    {"geometry", "attention", "statistics", "config", "catalogue", "arguments", "process", "words", "power"}
    | {"roles", "role_counts", "vary", "onset"},
    {"store", "figures", "data", "models", "measures"},
    {"heads"},
    {"observe", "app", "claims", "watcher"},
    {"recording", "report"},
    {"train"},
    {"display", "workers", "conclude"},
    {"studies"},
    {"cli"},
    {"__main__"},
    {"__init__"},  # the public names; loads parts when they are asked for
]
FLOOR = {part: number for number, parts in enumerate(FLOORS, 1) for part in parts}
NEIGHBOURS = {("attention", "geometry"), ("catalogue", "roles"), ("role_counts", "roles"), ("config", "vary")}
NEIGHBOURS |= {("onset", "statistics")}
WITHOUT_TORCH = {"figures", "report", "app", "store", "statistics", "claims", "conclude", "watcher", "roles", "onset"}
WITHOUT_TORCH |= {"heads"}


def files() -> dict[str, Path]:
    """Path of each module by its dotted name below the package; `store` for store/__init__.py."""
    package = SOURCE / "wherefrom"
    dotted = {path: ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in dotted.items()}


FILES = files()


def imported(path: Path, node: ast.AST) -> Iterator[str]:
    """Full names that an import statement may mean: for `from a import b` both a and a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = ".".join(path.relative_to(SOURCE).parts[: -node.level]) if node.level else ""
        source = ".".join(filter(None, (package, node.module)))
        submodules = [f"{source}.{alias.name}" for alias in node.names if alias.name != "__version__"]
        ours = [name for name in submodules if name.removeprefix("wherefrom.") in FILES]
        yield from ours if len(ours) == len(submodules) else [source, *ours]


def imports(name: str) -> set[str]:
    """Modules that a module of ours imports anywhere in it: ours by their name below the package, others in full."""
    found = {full for node in ast.walk(ast.parse(FILES[name].read_text())) for full in imported(FILES[name], node)}
    return {"__init__" if full == "wherefrom" else full.removeprefix("wherefrom.") for full in found} - {name}


IMPORTS = {name: imports(name) for name in FILES}


def part(name: str) -> str:
    return name.partition(".")[0]


def reached(name: str) -> set[str]:
    """All that a module imports, itself or through others of ours, and the packages they lie in."""
    seen, todo = set(), [name]
    while todo:
        if (module := todo.pop()) not in seen:
            seen.add(module)
            todo += IMPORTS.get(module, ())
            todo += [module.rpartition(".")[0]] if "." in module and module in FILES else []
    return seen


def test_every_part_has_its_floor():
    assert {part(name) for name in FILES} <= set(FLOOR)


def test_imports_go_down():
    pairs = {(part(name), part(other)) for name in FILES for other in IMPORTS[name] if other in FILES}
    assert ("store", "catalogue") in pairs  # the reader of imports reads
    up = {(above, below) for above, below in pairs if above != below and FLOOR[above] <= FLOOR[below]}
    assert up <= NEIGHBOURS


def test_no_circles():
    ours = {name: {other for other in IMPORTS[name] if other in FILES} for name in FILES}
    assert len(list(TopologicalSorter(ours).static_order())) == len(FILES)


def test_measures_never_reach_models():
    assert not [name for name in FILES if part(name) == "measures" and "models" in map(part, reached(name))]


def test_what_only_reads_never_reaches_torch():
    assert "torch" in map(part, reached("attention"))
    readers = sorted(name for name in FILES if part(name) in WITHOUT_TORCH)
    assert not [name for name in readers if "torch" in map(part, reached(name))]


def test_what_only_reads_leaves_torch_out_of_the_process():
    readers = sorted(f"wherefrom.{name}" for name in FILES if part(name) in WITHOUT_TORCH)
    program = f"import {', '.join(readers)}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
