"""The files of `deploy/`: what they set is what Dagster, Kubernetes, Compose and Slurm can read.

Two code locations and a daemon on PostgreSQL are really run, in `test_team`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema

from saerl_assets_tests.assets.test_graph import READS_A_MODEL

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOY = CHECKOUT / "deploy"
LIMITS = {"saerl/device": 8, "dagster/partition": 1}


@pytest.fixture
def definitions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`deploy/definitions.py`, as the team math has it."""
    monkeypatch.setenv("SAERL_TEAM", "math")
    spec = importlib.util.spec_from_file_location("team_definitions", DEPLOY / "definitions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name: str) -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def test_runs_and_steps_that_read_a_model_ask_for_a_device_and_no_others_do(definitions: ModuleType) -> None:
    defs: dg.Definitions = definitions.defs
    for name in ("build_version", "run_trial"):
        tags = defs.resolve_job_def(f"math_{name}").tags
        assert tags["saerl/device"] == "gpu"
        assert json.loads(tags["dagster-k8s/config"]) == definitions.KUBERNETES["dagster-k8s/config"]
    assert "dagster-k8s/config" not in defs.resolve_job_def("math_take_in").tags
    assets = [asset for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)]
    asking = {key.path[-1] for asset in assets if "dagster-k8s/config" in asset.op.tags for key in asset.keys}
    assert asking == READS_A_MODEL


def test_kubernetes_understands_the_tags(definitions: ModuleType) -> None:
    pytest.importorskip("dagster_k8s", reason="dagster-k8s, which reads the tags, is not installed")
    from dagster_k8s.job import get_user_defined_k8s_config

    tags = {name: json.dumps(value) for name, value in definitions.KUBERNETES.items()}
    found = get_user_defined_k8s_config(tags)
    assert found.container_config["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_dagster_takes_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read("dagster.yaml")
    for name in ("USER", "PASSWORD", "HOST", "PORT", "DB"):
        monkeypatch.setenv(f"SAERL_DAGSTER_PG_{name}", "1")
    assert process_config(resolve_to_config_type(dagster_instance_config_schema()), settings).success
    limits = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    assert {each["key"]: each["limit"] for each in limits} == LIMITS
    assert "password" not in str({**settings, "storage": ""}).lower(), "secrets come from variables"


def in_snake_case(value: Any) -> Any:  # noqa: ANN401 - YAML
    """As Dagster's chart writes its values into dagster.yaml; what a tag's limit is for stays as it is."""
    if isinstance(value, list):
        return [in_snake_case(each) for each in value]
    if not isinstance(value, dict) or "applyLimitPerUniqueValue" in value:
        return value
    return {re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name): in_snake_case(v) for name, v in value.items()}


@pytest.mark.parametrize(
    ("field", "model"),
    [
        ("env", "V1EnvVar"),
        ("envSecrets", "V1SecretEnvSource"),
        ("volumes", "V1Volume"),
        ("volumeMounts", "V1VolumeMount"),
        ("resources", "V1ResourceRequirements"),
    ],
)
def test_kubernetes_knows_what_a_location_is_given(field: str, model: str) -> None:
    client = pytest.importorskip("kubernetes.client", reason="dagster-k8s, which brings it, is not installed")
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    (deployment,) = read("values.yaml")["dagster-user-deployments"]["deployments"]
    kind = getattr(client, model)
    found = deployment[field] if isinstance(deployment[field], list) else [deployment[field]]
    for each in found:
        assert k8s_model_from_dict(kind, k8s_snake_case_dict(kind, each)).to_dict()
    with pytest.raises(Exception, match=r"nobodyKnows|nobody_knows"):
        k8s_model_from_dict(kind, k8s_snake_case_dict(kind, {**found[0], "nobodyKnows": 1}))


def test_helm_values_and_compose_say_the_same_as_dagster_yaml(definitions: ModuleType) -> None:
    values, compose = read("values.yaml"), read("compose.yaml")
    settings = in_snake_case({"concurrency": values["concurrency"]}) | {"telemetry": values["telemetry"]}
    assert settings["concurrency"].pop("enabled")
    assert settings == {name: read("dagster.yaml")[name] for name in settings}
    monitoring = {"run_monitoring": in_snake_case(values["dagsterDaemon"]["runMonitoring"])}
    assert process_config(resolve_to_config_type(dagster_instance_config_schema()), settings | monitoring).success
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["--module-name", "definitions"]
    hosts = {each["grpc_server"]["host"]: each["grpc_server"]["port"] for each in read("workspace.yaml")["load_from"]}
    for host, port in hosts.items():
        service = compose["services"][host]
        assert service["command"][-1] == str(port)
        assert service["environment"]["SAERL_TEAM"] == host
        assert set(service["environment"]) >= {
            f"SAERL_DAGSTER_{n}" for n in ("PG_USER", "PG_PASSWORD", "PG_HOST", "PG_PORT", "PG_DB", "LOGS")
        }
        assert service["hostname"] == host, "a dead run is known by its host"
    assert compose["services"]["webserver"]["ports"] == ["127.0.0.1:3000:3000"], "the UI has no login"
    assert definitions.TEAM == "math"


def test_the_image_has_every_file_that_it_copies() -> None:
    for line in (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY"):
            assert all((CHECKOUT / name).exists() for name in line.split()[1:-1]), line


def test_the_slurm_job_runs_the_version_and_asks_for_another_turn_at_its_end(tmp_path: Path) -> None:
    """With srun and scontrol replaced by scripts that note how they were called: there is no Slurm here."""
    script = DEPLOY / "slurm.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    bash = shutil.which("bash")
    assert bash is not None
    for name, body in (("srun", 'echo "srun $*" >> calls; exec sleep 30'), ("scontrol", 'echo "scontrol $*" >> calls')):
        path = tmp_path / name
        path.write_text(f"#!{bash}\ncd {tmp_path}\n{body}\n")
        path.chmod(0o755)
    surroundings = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SAERL_HOME": "/x"}
    refused = subprocess.run([bash, script], env=surroundings, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "usage" in refused.stderr
    with subprocess.Popen([bash, script, "math-v1"], env=surroundings) as job:
        calls = tmp_path / "calls"
        while not (calls.exists() and "srun" in calls.read_text()):
            assert job.poll() is None
        job.terminate()
        assert job.wait(20) == 0
    assert calls.read_text().splitlines() == ["srun --ntasks=1 saerl run math-v1", "scontrol requeue 7"]
