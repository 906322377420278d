"""`saerl show`, `saerl diff`, `saerl completion`, and the exit codes that the help promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saerl_assets import cli
from saerl_assets.automation.comparison import compare_versions
from saerl_assets.automation.summary import run_version
from saerl_assets.cli import EXIT_RUN_FAILED, EXIT_USER_ERROR, main
from saerl_assets.domain.spec import parse_spec, spec_digest
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld, source_lines, write_rows

WRONG_USAGE = 2
NEXT = "tiny-v2"


def call(*words: str) -> Result:
    """Runs the command; a traceback fails the test."""
    result = CliRunner().invoke(main, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def saerl(*words: str) -> str:
    """What a command that goes well prints."""
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def built(copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> HomeResource:
    """A home with the tiny version."""
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    return copied_home


def test_show_tells_a_script_everything_that_it_could_ask_for(built: HomeResource) -> None:
    found = json.loads(saerl("show", KEY, "--json"))
    version = built.version(KEY)
    assert found["spec_digest"] == version.digest
    assert found["manifest"] == version.current_manifest_id
    assert found["spec"]["batches"] == version.spec.batches.model_dump(mode="json")
    assert found["sources"]["data"]["digest"] == version.sources["data"].digest
    assert [manifest["manifest_id"] for manifest in found["manifests"]] == [version.current_manifest_id]
    assert found["measures"]["n_prompts"] == N_PROMPTS
    assert all(Path(export["path"]).is_dir() for export in found["exports"])
    assert [Path(report["path"]).is_file() for report in found["report"]] == [True]


def test_the_spec_that_show_prints_is_the_one_that_was_registered(built: HomeResource) -> None:
    assert spec_digest(parse_spec(saerl("show", KEY, "--spec"), "shown")) == built.version(KEY).digest
    assert call("show", KEY, "--spec", "--json").exit_code == WRONG_USAGE


def test_a_version_that_is_only_registered_is_shown_and_compared(built: HomeResource, tiny_world: TinyWorld) -> None:
    tiny_world.register(built, "later-v1", seed=4)
    found = json.loads(saerl("show", "later-v1", "--json"))
    assert (found["manifest"], found["manifests"], found["exports"], found["report"]) == (None, [], [], [])
    told = saerl("diff", KEY, "later-v1")
    assert told.count("not there in both") == 6
    diff = json.loads(saerl("diff", KEY, "later-v1", "--json"))
    assert [diff[name] for name in ("data", "features", "clusters", "difficulty", "quality", "order")] == [None] * 6


def test_a_version_is_held_against_itself(built: HomeResource) -> None:  # noqa: ARG001
    found = json.loads(saerl("diff", KEY, KEY, "--json"))
    assert found["spec"] == []
    assert found["data"]["n_common"] == N_PROMPTS
    assert found["features"]["same_encoders"]
    assert found["clusters"]["n_moved"] == 0
    assert found["order"]["same_step_fraction"] == 1.0
    assert "the same settings" in saerl("diff", KEY, KEY)


@pytest.mark.slow
def test_what_another_version_changed_is_said(built: HomeResource, tiny_world: TinyWorld) -> None:
    lines = source_lines()
    write_rows(tiny_world.folder / "fewer.jsonl", lines[20:])
    tiny_world.register(built, NEXT, parent=KEY, data={"source": "path:fewer.jsonl"}, batches={"batch_size": 4})
    outcome = run_version(built, NEXT)
    assert outcome.success, outcome.failure
    diff = compare_versions(built, KEY, NEXT).diff
    changes = {change.what: (change.before, change.after) for change in diff.spec}
    assert changes["parent"] == (None, KEY)
    assert changes["batches.batch_size"][1] == 4
    assert diff.data
    assert diff.data.n_removed == N_PROMPTS - diff.data.n_common
    assert 0 < diff.data.n_removed <= 20
    assert diff.data.n_added == 0
    assert diff.features
    assert diff.features.same_encoders
    assert diff.features.density_shift is not None
    assert diff.clusters
    assert diff.clusters.n_common == diff.data.n_common
    assert diff.order
    assert diff.order.same_step_fraction is not None
    assert diff.order.n_steps_after > diff.order.n_after // 5
    told = saerl("diff", KEY, NEXT)
    assert "batches.batch_size" in told
    texts = json.loads(saerl("diff", KEY, NEXT, "--json"))["texts"]
    assert set(diff.data.removed) <= set(texts)


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell: str) -> None:
    told = saerl("completion", shell)
    assert f"_SAERL_COMPLETE={shell}_complete" in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_finds_no_fault_with_its_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on PATH")
    script = tmp_path / "completion"
    script.write_text(saerl("completion", shell))
    subprocess.run([program, "-n", str(script)], check=True)


def completed(words: str, place: int, home: Path) -> list[str]:
    """What bash is offered."""
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(place), "_SAERL_COMPLETE": "bash_complete", "SAERL_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", "from saerl_assets.cli import main; main(prog_name='saerl')"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_keys_of_versions_are_completed_without_opening_the_warehouse(
    built: HomeResource, tiny_world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_world.register(built, "other-v1", seed=5)
    (built.open().warehouse).write_bytes(b"not a database")
    offered = main.commands["show"].params[0].shell_complete

    def keys(incomplete: str) -> list[str]:
        context = main.make_context("saerl", ["show"], resilient_parsing=True)
        return [item.value for item in offered(context, incomplete)]

    assert keys("") == ["other-v1", KEY]
    assert keys("ti") == [KEY]
    assert keys("*") == []
    monkeypatch.setenv("SAERL_HOME", str(tiny_world.folder / "nowhere"))
    assert keys("") == []


def test_bash_is_offered_verbs_in_the_order_of_use_and_keys(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / f"{KEY}.json").touch()
    assert completed("saerl d", 1, tmp_path) == ["diff", "delete", "doctor"]
    assert completed("saerl diff ti", 2, tmp_path) == [KEY]
    assert completed("saerl completion z", 2, tmp_path) == ["zsh"]


# ---------------------------------------------------------------- exit codes


def test_the_help_names_every_exit_code() -> None:
    told = " ".join(saerl("--help").split())
    assert "Exit codes: 0 done, 1 " in told
    assert "2 wrong usage, 3 a stage failed" in told
    known = {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert known == {EXIT_USER_ERROR, EXIT_RUN_FAILED} == {1, 3}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("versions",), 0),
        (("show", KEY), 0),
        (("diff", KEY, KEY), 0),
        (("completion", "bash"), 0),
        (("show", "nobody-v1"), EXIT_USER_ERROR),
        (("diff", KEY, "nobody-v1"), EXIT_USER_ERROR),
        (("diff", "nobody-v1", KEY), EXIT_USER_ERROR),
        (("sql", "SELECT * FROM nothing"), EXIT_USER_ERROR),
        (("register", "nothing.toml"), EXIT_USER_ERROR),
        (("manifest", KEY, "--rollback"), EXIT_USER_ERROR),
        (("show",), WRONG_USAGE),
        (("diff", KEY), WRONG_USAGE),
        (("completion", "tcsh"), WRONG_USAGE),
        (("nonsense",), WRONG_USAGE),
        (("show", KEY, "--nonsense"), WRONG_USAGE),
    ],
)
def test_the_exit_code_is_the_promised_one(words: tuple[str, ...], code: int, built: HomeResource) -> None:  # noqa: ARG001
    result = call(*words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_a_stage_that_fails_is_code_three(built: HomeResource, tiny_world: TinyWorld) -> None:
    write_rows(tiny_world.folder / "gone.jsonl", source_lines())
    tiny_world.register(built, "gone-v1", data={"source": "path:gone.jsonl"})
    (tiny_world.folder / "gone.jsonl").unlink()
    assert call("run", "gone-v1").exit_code == EXIT_RUN_FAILED
