"""Whose configuration a file is, how it is read, and what is said of one that cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.lint.engine import RULES, LintReport, lint_config, read_documents
from saerl_assets_tests.trainers.lint.examples import GOOD, NEMO_FRAGMENT, TRL_SCRIPT, VERL_YAML, export_of

if TYPE_CHECKING:
    from pathlib import Path


def lint(folder: Path, name: str, text: str, trainer: str | None = None) -> LintReport:
    (folder / name).write_text(text, encoding="utf-8")
    return lint_config(folder / name, trainer)


def named(report: LintReport) -> list[str]:
    return [finding.setting for finding in report.findings]


# ---------------------------------------------------------------- which trainer


@pytest.mark.parametrize(
    ("name", "text", "trainer"),
    [
        ("a.yaml", "shuffle_dataset: true", "trl"),
        ("a.yaml", "grpo: {num_prompts_per_step: 4}", "nemo_rl"),
        ("a.yaml", "actor_rollout_ref: {actor: {ppo_mini_batch_size: 4}}", "verl"),
        ("a.yaml", "rlhf_type: grpo\nnum_generations: 8\nsteps_per_generation: 4\n", "ms_swift"),
        ("a.txt", "--data.prompt_dataset x --rollout.batch_size 4", "openrlhf"),
        ("a", "trl dpo --beta 0.1", "trl_dpo"),
        ("a.conf", "# mine\nnum_generations: 8\n", "trl"),
    ],
)
def test_the_trainer_is_guessed_and_the_reason_said(name: str, text: str, trainer: str, tmp_path: Path) -> None:
    report = lint(tmp_path, name, text)
    assert report.trainer == trainer
    assert report.guessed_from
    assert f"guessed from {report.guessed_from[0]}" in report.lines()[0]


@pytest.mark.parametrize(
    "text", ["seed: 3", "learning_rate: 1.0e-6\nbeta: 0.1\n", "shuffle_dataset: true\nrlhf_type: grpo"]
)
def test_a_file_that_could_be_anyones_asks(text: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="--trainer") as caught:
        lint(tmp_path, "a.yaml", text)
    assert caught.value.code == "trainer_unclear"
    told = lint(tmp_path, "a.yaml", text, "verl")
    assert told.trainer == "verl"
    assert told.guessed_from == []
    assert "data.shuffle" in named(told)


def test_a_trainer_without_rules_is_refused_with_those_that_have() -> None:
    with pytest.raises(SaerlError, match="openrlhf") as caught:
        lint_config(None, "slime")  # type: ignore[arg-type]
    assert caught.value.code == "unknown_trainer"


def test_an_export_for_another_trainer_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(VERL_YAML)
    report = lint_config(tmp_path / "a.yaml", export=export_of("trl"))
    assert named(report) == ["--manifest"]
    assert "saerl export some-v1 --to verl" in report.findings[0].remedy
    assert lint_config(tmp_path / "a.yaml", export=export_of("parquet")).findings == []


# ---------------------------------------------------------------- files that cannot be read


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.yaml", "data:\n  shuffle: [false\ntrainer: 1\n", "a.yaml:3"),
        ("a.yaml", "data:\n\tshuffle: false\n", "a.yaml:2"),
        ("a.yaml", "- a\n- b\n", "a.yaml:1"),
        ("a.json", '{\n  "shuffle_dataset": false,\n}', "a.json:3"),
        ("a.json", '{"a": 1', "a.json:1"),
        ("a.py", "args = GRPOConfig(\n    a=1\nb = )\n", "a.py:"),
        ("a.sh", "echo 1\ntrl grpo --a 'b\n\n", "a.sh:2"),
        ("a.sh", 'trl grpo --a "b\n', "a.sh:1"),
        ("a.sh", "x=$(cat a\n", "a.sh:1"),
        ("a.yaml", "a: 1\nb: !!python/name:os.system x\n", "a.yaml:2"),
    ],
)
def test_a_broken_file_is_answered_with_its_line(name: str, text: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught:
        lint(tmp_path, name, text, "trl")
    assert caught.value.code == "config_invalid"
    assert where in caught.value.where
    assert caught.value.remedy


def test_files_that_are_no_config(tmp_path: Path) -> None:
    for name, content in (("a.yaml", b"\xff\xfe\x00"), ("b.yaml", None), ("c.yaml", b"x" * 20_000_001)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SaerlError) as caught:
            lint_config(tmp_path / name)
        assert caught.value.code == "config_unreadable"
    with pytest.raises(SaerlError) as caught:
        lint_config(tmp_path)
    assert caught.value.code == "config_unreadable"


@pytest.mark.parametrize(
    ("name", "text"), [("a.yaml", ""), ("a.sh", "# nothing\n"), ("a.py", "x = 1\n"), ("a.json", "{}")]
)
def test_a_file_without_settings(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught:
        lint(tmp_path, name, text)
    assert caught.value.code == "no_settings"


def test_a_yaml_that_multiplies_itself_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{at}: &a{at} {{{', '.join(f'k{k}: *a{at - 1}' for k in range(9))}}}" for at in range(1, 12)]
    with pytest.raises(SaerlError, match="beyond what a config is"):
        lint(tmp_path, "a.yaml", "\n".join(lines))


# ---------------------------------------------------------------- YAML


def test_references_are_followed_and_others_are_unread(tmp_path: Path) -> None:
    text = (
        VERL_YAML.replace("train_batch_size: 32", "train_batch_size: ${sizes.batch}") + "sizes:\n  batch: ${n}\nn: 32\n"
    )
    assert lint(tmp_path, "a.yaml", text).findings == []
    for written in ("${oc.env:BS}", "???", "${oc.select:a.b,3}", "${a.b.c}", "${data.train_batch_size}"):
        unread = VERL_YAML.replace("shuffle: false", f"shuffle: {written}")
        report = lint(tmp_path, "a.yaml", unread)
        assert [(finding.setting, finding.level, finding.line) for finding in report.findings[:1]] in (
            [("data.shuffle", "unclear", 6)],
            [("data.shuffle", "problem", 6)],
        )
        assert not report.is_clean


def test_text_that_looks_like_false_is_true_to_verl(tmp_path: Path) -> None:
    assert named(lint(tmp_path, "a.yaml", VERL_YAML.replace("shuffle: false", 'shuffle: "False"'))) == ["data.shuffle"]


def test_nemo_recipes_are_read_with_their_parents(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(NEMO_FRAGMENT.replace("shuffle: false", "shuffle: true"))
    report = lint(tmp_path, "child.yaml", "defaults: base.yaml\ngrpo: {num_prompts_per_step: 32}\n")
    assert named(report) == ["data.shuffle"]
    assert report.findings[0].file == str(tmp_path / "base.yaml")
    assert (
        lint(
            tmp_path, "child.yaml", "defaults: [base.yaml]\ngrpo: {max_num_epochs: 1}\ndata: {shuffle: false}\n"
        ).findings
        == []
    )
    overridden = "defaults: base.yaml\ngrpo: {max_num_epochs: 1}\ndata: {_override_: true, shuffle: false}\n"
    assert "data.train.data_path" not in read_documents_of(tmp_path, overridden)


def read_documents_of(folder: Path, text: str) -> dict[str, object]:
    (folder / "child.yaml").write_text(text)
    (document,) = read_documents(folder / "child.yaml")
    return dict(document.settings)


def test_a_parent_that_is_not_there_is_said(tmp_path: Path) -> None:
    report = lint(tmp_path, "a.yaml", "defaults: nowhere.yaml\ngrpo: {max_num_epochs: 1}\n")
    assert [(finding.level, finding.setting) for finding in report.findings] == [("unclear", "defaults: nowhere.yaml")]
    assert not report.is_clean


# ---------------------------------------------------------------- command lines


def test_a_file_named_by_a_command_is_read_beneath_it(tmp_path: Path) -> None:
    (tmp_path / "grpo.yaml").write_text("shuffle_dataset: true\nnum_train_epochs: 1\n")
    report = lint(tmp_path, "run.sh", "trl grpo --config grpo.yaml --num_generations 4\n")
    assert [(finding.setting, finding.file) for finding in report.findings] == [
        ("shuffle_dataset", str(tmp_path / "grpo.yaml"))
    ]
    assert lint(tmp_path, "run.sh", "trl grpo --config grpo.yaml --shuffle_dataset False\n").findings == []
    missing = lint(tmp_path, "run.sh", "trl grpo --config nowhere.yaml\n")
    assert [(finding.setting, finding.level) for finding in missing.findings] == [("nowhere.yaml", "unclear")]


def test_hydras_config_name_is_read_beneath_it(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text(VERL_YAML)
    command = "python3 -m verl.trainer.main_ppo --config-path=config --config-name=mine trainer.n_gpus_per_node=8\n"
    assert lint(tmp_path, "run.sh", command).findings == []
    assert named(lint(tmp_path, "run.sh", command.replace("trainer.n", "data.shuffle=true trainer.n"))) == [
        "data.shuffle"
    ]
    unread = lint(tmp_path, "run.sh", command.replace("--config-path=config", "--config-path=$WHERE"))
    assert [finding.level for finding in unread.findings] == ["unclear"]


def test_the_exports_own_overrides_are_read_through_cat(tmp_path: Path) -> None:
    (tmp_path / "overrides.txt").write_text(dict(GOOD["verl"])["overrides.txt"])
    text = "E=.\npython -m verl.trainer.main_ppo \\\n  $(cat $E/overrides.txt) \\\n  data.train_files=$E/a.parquet\n"
    assert lint(tmp_path, "run.sh", text).findings == []
    (tmp_path / "overrides.txt").write_text("data.shuffle=True\n")
    report = lint(tmp_path, "run.sh", text)
    assert (report.findings[0].setting, report.findings[0].file) == ("data.shuffle", str(tmp_path / "overrides.txt"))
    (tmp_path / "export").mkdir()
    (tmp_path / "overrides.txt").rename(tmp_path / "export" / "overrides.txt")
    assert [finding.level for finding in lint(tmp_path, "run.sh", text).findings] == ["unclear"]
    text = text.replace("$(cat $E/overrides.txt)", '$(cat "$OUT/export/overrides.txt")')
    (tmp_path / "run.sh").write_text(text)
    known = lint_config(tmp_path / "run.sh", folder=tmp_path / "export")
    assert known.findings[0].file == str(tmp_path / "export" / "overrides.txt")


def test_commands_beside_the_training_do_not_matter(tmp_path: Path) -> None:
    text = (
        "saerl --home h export demo-v1 --to verl --out verl/export --shuffle yes\nmkdir -p out/verl/x\n"
        "python -m verl.trainer.main_ppo data.shuffle=False data.train_batch_size=8 trainer.total_epochs=1 "
        "actor_rollout_ref.actor.ppo_mini_batch_size=8\nsaerl verify log.jsonl --manifest verl/export\n"
    )
    assert lint(tmp_path, "run.sh", text).findings == []


def test_shell_is_read_as_a_shell_reads_it(tmp_path: Path) -> None:
    text = """\
#!/bin/bash
# trl grpo --shuffle_dataset True
cat > notes.md <<'EOF'
it's a here-document with a lone quote
EOF
if [ "$1" = x ]; then echo "quoted \\" quote"; fi
export EXTRA="--shuffle_dataset false --num_train_epochs 1"
OUT='with $dollar'
trl grpo --output_dir "$OUT" \\
  --num_generations "8" \\
  $EXTRA > log.txt 2>&1 &
"""
    report = lint(tmp_path, "run.sh", text)
    assert report.findings == []
    (document,) = [each for each in read_documents(tmp_path / "run.sh") if "shuffle_dataset" in each.settings]
    assert document.settings["num_generations"].value == 8
    assert document.settings["num_generations"].line == 10
    assert document.settings["shuffle_dataset"].line == 7
    assert document.settings["num_train_epochs"].value == 1


def test_every_training_of_a_script_is_read(tmp_path: Path) -> None:
    text = "trl grpo --shuffle_dataset false --num_train_epochs 1\nls\ntrl grpo --num_train_epochs 1\n"
    report = lint(tmp_path, "run.sh", text)
    assert [(finding.setting, finding.line) for finding in report.findings] == [("shuffle_dataset", 3)]


def test_what_other_programs_add_is_said(tmp_path: Path) -> None:
    report = lint(tmp_path, "run.sh", "python3 -m verl.trainer.main_ppo data.shuffle=False ${MORE[@]}\n")
    assert ("${MORE[@]}", "unclear") in [(finding.setting, finding.level) for finding in report.findings]


@pytest.mark.parametrize("written", ["no", "f", "False", "false", "0", "n"])
def test_words_for_no_on_a_command_line(written: str, tmp_path: Path) -> None:
    text = f"trl grpo --num_train_epochs 1 --shuffle_dataset {written}\n"
    assert lint(tmp_path, "run.sh", text).findings == []
    other = text.replace(f" {written}\n", {"no": " yes", "f": " t"}.get(written, " 1") + "\n")
    assert named(lint(tmp_path, "run.sh", other)) == ["shuffle_dataset"]


# ---------------------------------------------------------------- Python


def test_saerls_own_loader_gives_right_settings(tmp_path: Path) -> None:
    text = """\
from trl import GRPOConfig, GRPOTrainer
from saerl_assets.trainers.trl import load
dataset, settings = load("export")
args = GRPOConfig(output_dir="out", **settings)
trainer = GRPOTrainer(args=args, train_dataset=dataset)
"""
    assert lint(tmp_path, "a.py", text).findings == []
    shuffled = text.replace("train_dataset=dataset", "train_dataset=dataset.shuffle()")
    assert named(lint(tmp_path, "a.py", shuffled)) == ["train_dataset"]
    other = text.replace("saerl_assets.trainers.trl import load", "mine import load")
    assert [finding.level for finding in lint(tmp_path, "a.py", other).findings] == ["unclear"]
    overridden = text.replace("**settings", "**{**settings, 'shuffle_dataset': True}")
    assert named(lint(tmp_path, "a.py", overridden)) == ["shuffle_dataset"]


def test_settings_from_a_json_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "grpo_config.json").write_text(dict(GOOD["trl"])["grpo.json"])
    text = (
        'import json\nsettings = json.load(open("grpo_config.json"))\nargs = GRPOConfig(output_dir="o", **settings)\n'
    )
    assert lint(tmp_path, "a.py", text).findings == []
    (tmp_path / "grpo_config.json").write_text('{"shuffle_dataset": true,\n "num_train_epochs": 1}')
    report = lint(tmp_path, "a.py", text)
    assert [(finding.setting, finding.file, finding.line) for finding in report.findings] == [
        ("shuffle_dataset", str(tmp_path / "grpo_config.json"), 1)
    ]


def test_a_streaming_data_set_is_shuffled_unless_the_flag_is_off(tmp_path: Path) -> None:
    streaming = TRL_SCRIPT.replace('split="train")', 'split="train", streaming=True)')
    assert lint(tmp_path, "a.py", streaming).findings == []
    report = lint(tmp_path, "a.py", streaming.replace("    shuffle_dataset=False,\n", ""))
    assert named(report) == ["shuffle_dataset"]
    assert "buffer" in report.findings[0].why


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ("dataset = dataset.shuffle(seed=3)", "shuffle"),
        ("dataset = dataset.filter(short)", "filter"),
        ("dataset = dataset.train_test_split(0.1)['train']", "train_test_split"),
        ("dataset = interleave_datasets([dataset, other])", "interleave_datasets"),
        ("dataset = datasets.concatenate_datasets([dataset, other])", "concatenate_datasets"),
        ("dataset = dataset.map(to_chat)", ""),
        ("other = dataset.shuffle(seed=3)", ""),
        ("random.shuffle(names)", ""),
    ],
)
def test_what_is_done_to_the_data_set_before(line: str, calls: str, tmp_path: Path) -> None:
    report = lint(tmp_path, "a.py", TRL_SCRIPT.replace("G = 8", f"G = 8\n{line}"))
    assert [finding.value for finding in report.findings] == ([f"['{calls}']"] if calls else [])


def test_a_program_is_never_run(tmp_path: Path) -> None:
    text = f"open({str(tmp_path / 'ran')!r}, 'w')\nargs = GRPOConfig(seed=open({str(tmp_path / 'ran')!r}, 'w'))\n"
    lint(tmp_path, "a.py", text)
    assert not (tmp_path / "ran").exists()


def test_a_program_that_takes_its_config_from_the_command_line(tmp_path: Path) -> None:
    text = "parser = TrlParser((ScriptArguments, GRPOConfig))\nargs = parser.parse_args()\n"
    with pytest.raises(SaerlError, match="give the command or its YAML file"):
        lint(tmp_path, "a.py", text)
    text += "data = load_dataset('x').filter(short)\ntrainer = GRPOTrainer(args=args, train_dataset=data)\n"
    report = lint(tmp_path, "a.py", text)
    assert [(finding.level, finding.setting) for finding in report.findings] == [
        ("problem", "train_dataset"),
        ("unclear", "args=args"),
    ]


def test_a_command_of_an_older_openrlhf_is_told(tmp_path: Path) -> None:
    text = "python3 -m saerl_assets.trainers.openrlhf_launcher --rollout_batch_size 128 --prompt_data x\n"
    report = lint(tmp_path, "run.sh", text)
    assert named(report) == ["rollout_batch_size", "prompt_data"]
    assert "--rollout.batch_size" in report.findings[0].remedy


# ---------------------------------------------------------------- the report


def test_the_report_for_scripts(tmp_path: Path) -> None:
    report = lint(tmp_path, "a.yaml", VERL_YAML.replace("shuffle: false", "shuffle: true"))
    told = json.loads(report.as_json())
    assert (told["trainer"], told["is_clean"]) == ("verl", False)
    assert told["findings"][0] | {"why": "", "remedy": ""} == {
        "level": "problem",
        "setting": "data.shuffle",
        "file": str(tmp_path / "a.yaml"),
        "line": 6,
        "value": "True",
        "why": "",
        "remedy": "",
    }
    lines = report.lines()
    assert f"problem: {tmp_path / 'a.yaml'}:6: data.shuffle = True" in lines
    assert lines[-1] == "1 that break the order"


def test_problems_come_before_notes(tmp_path: Path) -> None:
    text = "trl grpo --num_iterations 2 --num_train_epochs $N\n"
    assert [finding.level for finding in lint(tmp_path, "run.sh", text).findings] == ["problem", "unclear", "caution"]


@pytest.mark.parametrize("trainer", sorted(RULES))
def test_sizes_are_checked_with_an_export_only(trainer: str, tmp_path: Path) -> None:
    name, text = GOOD[trainer][0]
    (tmp_path / name).write_text(text)
    other = replace(export_of(trainer), batch_size=48, n_rows=480, n_steps=10)
    assert lint_config(tmp_path / name).findings == []
    assert "48" in " ".join(finding.why for finding in lint_config(tmp_path / name, export=other).findings)
