"""Every command and code block of README, CONTRIBUTING and docs is run by a test, or stands on a list with a reason."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TOOLS = ("repromia ", "python ", "pip ", "make ")
README = "test_docs.py::test_the_readme_command"
BUILT = "repromia audit --model mymodel:build --weights model.safetensors"

# Page -> beginning of a command or of a block -> the test that runs it as printed, with flags that make it short.
RUN = {
    "README.md": {
        "repromia audit --model ./finetuned": f"{README}_runs_as_printed",
        "import repromia": "test_docs.py::test_the_readme_python_runs_as_printed",
        "repromia audit --model ./ddpm-pipeline": f"{README}_for_diffusion_models_runs_as_printed",
        f"{BUILT} --members": f"{README}_for_classifiers_runs_as_printed",
        f"{BUILT} --graph": f"{README}_for_graphs_runs_as_printed",
        "repromia audit --endpoint": "test_docs_pages.py::test_the_endpoint_command_of_the_readme",
    },
    "CONTRIBUTING.md": {"@attack(": "test_docs_pages.py::test_the_attack_of_contributing_is_the_one_of_the_package"},
    "docs/start.md": {"repromia ": "test_docs_pages.py::test_commands_of_start_and_language"},
    "docs/language.md": {"repromia ": "test_docs_pages.py::test_commands_of_start_and_language"},
    "docs/diffusion.md": {
        "repromia audit": f"{README}_for_diffusion_models_runs_as_printed",
        "from repromia.targets.pipelines": "test_docs_pages.py::test_a_network_of_ones_own_becomes_a_target",
    },
    "docs/classifiers.md": {
        "repromia audit": f"{README}_for_classifiers_runs_as_printed",
        "import repromia": "test_docs_pages.py::test_the_python_of_classifiers",
    },
    "docs/graphs.md": {
        "repromia audit": f"{README}_for_graphs_runs_as_printed",
        "import repromia": "test_docs.py::test_a_dataset_of_torch_geometric_becomes_a_file_as_printed",
    },
    "docs/defences.md": {"repromia ": "test_docs_pages.py::test_commands_of_dp_and_defences"},
    "docs/dp.md": {
        "repromia ": "test_docs_pages.py::test_commands_of_dp_and_defences",
        "from opacus": "test_docs_pages.py::test_private_training_as_printed",
    },
    "docs/evidence.md": {"repromia ": "test_docs_evidence.py::test_the_commands_run_as_printed"},
    "docs/extending.md": {
        "# our_attacks.py": "test_docs_extending.py::test_an_attack_and_a_program_of_other_packages_are_used",
        "# pyproject.toml": "test_docs_extending.py::test_an_attack_and_a_program_of_other_packages_are_used",
        "repromia ": "test_docs_extending.py::test_an_attack_and_a_program_of_other_packages_are_used",
        "# our_programs.py": "test_docs_extending.py::test_an_attack_and_a_program_of_other_packages_are_used",
        "# our_target.py": "test_docs_extending.py::test_a_target_of_ones_own_is_audited",
        "# audit_it.py": "test_docs_extending.py::test_a_target_of_ones_own_is_audited",
    },
    "docs/benchmarks.md": {
        "repromia bench --list": "test_docs_pages.py::test_benchmarks_are_listed_and_rehearsed",
        "repromia bench cifar10-ddpm": "test_docs_pages.py::test_benchmarks_are_listed_and_rehearsed",
        "from functools": "benchmarks/test_bench_run.py::test_another_package_brings_a_benchmark_of_its_own",
        "[project.entry-points": "benchmarks/test_bench_run.py::test_another_package_brings_a_benchmark_of_its_own",
    },
}

# Page -> beginning -> why no test of `make test` runs it.
NOT_RUN = {
    "README.md": {
        "make demo": "installs; test_docs.py::test_the_demo_ends_in_a_report runs its command among the slow tests",
        "make test": "installs and runs all tests",
        "pip install": "installs",
        "The model gives away": "printed by make demo",
    },
    "docs/start.md": {"make demo": "as in the README"},
    "docs/diffusion.md": {"The model gives away": "printed by repromia demo diffusion"},
    "docs/classifiers.md": {"The model gives away": "printed by repromia demo classifier"},
    "docs/graphs.md": {"The model gives away": "printed by repromia demo graph"},
    "docs/cluster.md": {"repromia audit": "needs a cluster; test_cluster_asking.py audits files by two workers"},
    "docs/dp.md": {
        "python train.py": "a file of the reader's own, whose private part is run",
        "python -m benchmarks.dp_training": "minutes; test_dp_training.py trains in the same way for a few steps",
    },
    "docs/results/robustness.md": {"pip": "installs, and asks a registry about every package"},
    "docs/benchmarks.md": {
        "repromia bench wikimia-64": "minutes; test_bench_run.py runs the same cell with fewer attacks",
        "repromia bench wikimia --data": "hours, and data that is not shipped",
    },
}


def items(page: Path) -> list[str]:
    """Commands, one by one with continued lines joined; other blocks whole."""
    found = []
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        commands = [line for line in lines if line.startswith(TOOLS)]
        found += commands or [block.strip()]
    return found


def listed(table: dict[str, dict[str, str]], page: str, item: str) -> list[str]:
    return [beginning for beginning in table.get(page, {}) if item.startswith(beginning)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_run_or_has_a_reason(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    if name.startswith("docs/results/"):  # how figures were made: hours
        for module in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8")):
            assert importlib.util.find_spec(module), module
        return
    own = items(page)
    for item in own:
        assert listed(RUN, name, item) or listed(NOT_RUN, name, item), f"{name}: run by no test: {item[:80]}"
        assert not (listed(RUN, name, item) and listed(NOT_RUN, name, item)), item[:80]
    for beginning in (*RUN.get(name, {}), *NOT_RUN.get(name, {})):
        assert any(item.startswith(beginning) for item in own), f"{name} has no {beginning!r} any more"


@pytest.mark.parametrize("test", sorted({test for own in RUN.values() for test in own.values()}))
def test_the_test_is_there_reads_the_page_and_is_not_slow(test: str) -> None:
    file, _, name = test.partition("::")
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    (found,) = [one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef) and one.name == name]
    assert not any("slow" in ast.unparse(one) for one in found.decorator_list)
    for page in (page for page, own in RUN.items() if test in own.values()):
        assert f'"{Path(page).name}"' in source or Path(page).stem in name, page


def test_a_block_that_nobody_runs_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\nrepromia audit \\\n  --model x\nrepromia check\n```\n\n```python\nprint(1)\n```\n")
    assert items(page) == ["repromia audit    --model x", "repromia check", "print(1)"]
    assert listed({"page.md": {"repromia audit": "a"}}, "page.md", items(page)[0])
    assert not listed({"page.md": {"repromia audit": "a"}}, "page.md", items(page)[1])
