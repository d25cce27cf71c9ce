"""The manifests for Kubernetes and the server's configuration: they parse, name things that are there, and agree with each other."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tfbert.command_line import fine_tuning
from tfbert.errors import Interrupted, WorkerLost
from tfbert.serving.operations import operations

ROOT = Path(__file__).resolve().parents[1]
# The fields of TF Serving's messages that are in use (tensorflow_serving/config and servables/tensorflow/session_bundle_config.proto):
# message -> field -> its type, in brackets where there are several.
MESSAGES = {
    "ModelServerConfig": {"model_config_list": "ModelConfigList"},
    "ModelConfigList": {"config": ["ModelConfig"]},
    "ModelConfig": {
        "name": "string",
        "base_path": "string",
        "model_platform": "string",
        "model_version_policy": "VersionPolicy",
        "version_labels": ["Label"],
    },
    "Label": {"key": "string", "value": "int64"},
    "VersionPolicy": {"latest": "Latest", "specific": "Specific"},
    "Latest": {"num_versions": "int64"},
    "Specific": {"versions": ["int64"]},
    "BatchingParameters": {
        "max_batch_size": "Value",
        "batch_timeout_micros": "Value",
        "max_enqueued_batches": "Value",
        "num_batch_threads": "Value",
        "allowed_batch_sizes": ["int64"],
        "pad_variable_length_inputs": "bool",
    },
    "Value": {"value": "int64"},
    "MonitoringConfig": {"prometheus_config": "Prometheus"},
    "Prometheus": {"enable": "bool", "path": "string"},
}
# Of tensorflow_serving/model_servers/main.cc, release 2.20.
FLAGS = {
    "port",
    "rest_api_port",
    "model_config_file",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "file_system_poll_wait_seconds",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
}


@pytest.fixture(scope="module")
def parse():
    """(name of a message, text) -> the message; unknown fields and wrong types are errors."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="serving", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (own, kind) in enumerate(fields.items(), 1):
            several, kind = isinstance(kind, list), kind[0] if isinstance(kind, list) else kind
            made = message.field.add(
                name=own, number=number, label=field.LABEL_REPEATED if several else field.LABEL_OPTIONAL
            )
            if kind in MESSAGES:
                made.type, made.type_name = field.TYPE_MESSAGE, f".serving.{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def read(name: str, text: str):
        message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"serving.{name}"))()
        return text_format.Parse(text, message)

    return read


def check_batching(found) -> None:
    sizes = list(found.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == found.max_batch_size.value
    assert not found.pad_variable_length_inputs and found.num_batch_threads.value > 0


def documents(name: str) -> dict[str, dict]:
    """The objects of a file, by their kinds."""
    found = list(yaml.safe_load_all((ROOT / "examples" / "kubernetes" / f"{name}.yaml").read_text("utf-8")))
    assert all(each["metadata"]["name"] and each["apiVersion"] for each in found)
    return {each["kind"]: each for each in found}


def test_the_job_is_a_command_of_tfbert_that_goes_on_after_sigterm():
    job = documents("training")["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    task, *words = container["args"][1:]
    assert [*container["command"], container["args"][0]] == ["tfbert", "fine-tune"]
    parsed = fine_tuning.arguments([task, *words])
    assert parsed.settings["resume"] is True and str(parsed.output).startswith("/models/")
    ignored, _, failing = job["podFailurePolicy"]["rules"]
    assert ignored["onExitCodes"]["values"] == [Interrupted(signal.SIGTERM, "").code] == [75]
    assert failing["onExitCodes"]["values"] == [1, 2] and pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 2 * parsed.settings["save_every"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def config_of(text: str) -> tuple[list[str], int]:
    """The workers and the own index that a shell's output has, as TensorFlow would read it."""
    config = json.loads(text)
    return config["cluster"]["worker"], config["task"]["index"]


def test_the_workers_pods_find_each_other_and_run_a_command_of_tfbert(tmp_path):
    found = documents("workers")
    name, job = found["Service"]["metadata"]["name"], found["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert job["completions"] == job["parallelism"] == int(environment["WORKERS"]) == 2
    assert (job["completionMode"], pod["subdomain"], pod["restartPolicy"]) == ("Indexed", name, "Never")
    assert found["Service"]["spec"]["clusterIP"] == "None" and found["Service"]["spec"]["publishNotReadyAddresses"]
    assert found["Service"]["spec"]["selector"] == {"job-name": found["Job"]["metadata"]["name"]}
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [WorkerLost.code] == [75]
    (tmp_path / "tfbert").write_text('#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" "$@"\n')
    (tmp_path / "tfbert").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        [*container["command"], *container["args"]],
        env={**environment, "PATH": path, "JOB_COMPLETION_INDEX": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    config, *words = done.stdout.splitlines()
    ports = [str(port["containerPort"]) for port in container["ports"]]
    # A pod of an indexed Job is called JOB-INDEX, and is JOB-INDEX.SUBDOMAIN in the cluster.
    hosts = [f"{found['Job']['metadata']['name']}-{i}.{name}:{ports[0]}" for i in range(2)]
    assert config_of(config) == (hosts, 1) and words == container["args"]
    parsed = fine_tuning.arguments(words[1:])
    assert parsed.settings["strategy"] == "multi-worker" and parsed.settings["resume"] is True


@pytest.mark.parametrize("code", [0, 75, 2])
def test_the_slurm_job_lists_its_nodes_and_queues_again_where_it_was_interrupted(tmp_path, code):
    programs = {
        "scontrol": 'if [ "$1" = show ]; then printf "node7\\nnode9\\n"; else echo "$@"; fi',
        "srun": 'shift; export SLURM_PROCID=1; exec "$@"',
        "tfbert": f'printf "%s\\n" "$TF_CONFIG" "$@"; exit {code}',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / "slurm" / "training.sbatch")],
        env={
            "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    config, *words = done.stdout.splitlines()
    assert done.returncode == code and config_of(config) == (["node7:12007", "node9:12007"], 1)
    assert (words[-1] == "requeue 7") == (code == 75)
    parsed = fine_tuning.arguments(words[1:-1] if code == 75 else words[1:])
    assert parsed.settings["strategy"] == "multi-worker" and (ROOT / parsed.train).is_file()


def test_the_server_reads_what_is_configured_and_serves_what_is_exported(parse):
    found = documents("serving")
    texts, pod = found["ConfigMap"]["data"], found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(re.fullmatch(r"--(\w+)(?:=(.+))?", word).groups() for word in container["args"])
    assert flags.keys() <= FLAGS
    release = re.fullmatch(r"tensorflow/serving:(\d+\.\d+)\.\d+", container["image"])[1]
    assert operations(release)  # exports are checked against this release
    for name in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        folder, file = flags[name].rsplit("/", 1)
        assert folder == "/config" and file in texts
    (config,) = parse("ModelServerConfig", texts["model.config"]).model_config_list.config
    check_batching(parse("BatchingParameters", texts["batching.config"]))
    monitoring = parse("MonitoringConfig", texts["monitoring.config"]).prometheus_config
    annotations = found["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert monitoring.enable and monitoring.path == annotations["prometheus.io/path"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": int(flags["port"]), "rest": int(flags["rest_api_port"])}
    assert annotations["prometheus.io/port"] == str(ports["rest"])
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} == set(ports)
    assert found["Service"]["spec"]["selector"] == found["Deployment"]["spec"]["selector"]["matchLabels"]
    assert container["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{config.name}", "port": "rest"}
    # The job writes where the server looks.
    job = documents("training")["Job"]["spec"]["template"]["spec"]
    output = fine_tuning.arguments(job["containers"][0]["args"][1:]).output
    claims = [next(each for each in spec["volumes"] if each["name"] == "models") for spec in (job, pod)]
    assert str(output) == config.base_path
    assert len({claim["persistentVolumeClaim"]["claimName"] for claim in claims}) == 1


def test_the_configuration_in_the_documentation_is_the_servers(parse):
    text = (ROOT / "saved_models" / "README.md").read_text("utf-8")
    models, batching = re.findall(r"^```\n(model_config_list.+?|max_batch_size.+?)^```", text, re.M | re.S)
    (config,) = parse("ModelServerConfig", models).model_config_list.config
    assert {label.value for label in config.version_labels} <= set(config.model_version_policy.specific.versions)
    check_batching(parse("BatchingParameters", batching))
    with pytest.raises(text_format.ParseError, match="no field named"):
        parse("BatchingParameters", "max_batch { value: 1 }")
