"""Manifests: what the schemas of several versions of Kubernetes accept, and what is refused that they let pass."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.orders import SECRET, order

from wdsearch.launch.engines import LAUNCHERS, EngineError, LaunchError
from wdsearch.launch.engines._manifest import check_manifest, quantity
from wdsearch.launch.engines.kubernetes import KubernetesOptions, cron_study, cronjob, job, manifest_text
from wdsearch.storage.studies import identity
from wdsearch.study.file import as_yaml
from wdsearch.study.load import load_study

kubernetes_validate = pytest.importorskip("kubernetes_validate")

FEW = KubernetesOptions(image="registry.example.org/wdsearch:1")
ALL = KubernetesOptions(
    image="registry.example.org:5000/ml/wdsearch@sha256:" + "0" * 64,
    namespace="ml",
    cpus=0.5,
    memory_gb=1.5,
    gpus=2,
    secret="studies",
    home_claim="homes",
    claims={"/data": "patients", "/more": "images"},
    node_selector={"gpu": "a100"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    pull_secret="registry",
)
VERSIONS = ("1.29", "1.33", "1.37")


def made(folder: Path, options: KubernetesOptions = FEW, study: str = "small") -> list[dict[str, Any]]:
    """All kinds of manifests, as a cluster reads them."""
    ordered = order(folder, study)
    manifests = [
        *job(ordered, options),
        cron_study(ordered, options),
        cronjob(
            ordered, options, "30 2 * * 1-5", "Europe/Berlin", "Forbid", ["wdsearch", "run", f"/study/{study}.yaml"]
        ),
    ]
    return list(yaml.safe_load_all(manifest_text(manifests)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [FEW, ALL], ids=["few", "all"])
def test_manifests_are_valid_by_the_schemas_of_kubernetes(
    tmp_path: Path, version: str, options: KubernetesOptions
) -> None:
    manifests = made(tmp_path, options)
    assert [manifest["kind"] for manifest in manifests] == ["ConfigMap", "Job", "ConfigMap", "CronJob"]
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version
        assert check_manifest(manifest) == []


def test_the_schemas_do_find_what_is_wrong(tmp_path: Path) -> None:
    manifest = made(tmp_path)[1]
    manifest["spec"]["paralelism"] = 4
    with pytest.raises(kubernetes_validate.ValidationError, match="paralelism"):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_a_job_runs_the_study_file_as_it_is(tmp_path: Path) -> None:
    ordered = order(tmp_path)
    study, workers = made(tmp_path)[:2]
    (name, text), *_ = study["data"].items()
    (container,) = workers["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["wdsearch", "run", f"/study/{name}"]
    file = tmp_path / name
    file.write_text(text)
    assert identity(load_study(file), "") == identity(load_study(ordered.content), "")
    (volume,) = [v for v in workers["spec"]["template"]["spec"]["volumes"] if v["name"] == "study"]
    assert volume["configMap"]["name"] == study["metadata"]["name"]


def test_secrets_come_from_a_secret_alone(tmp_path: Path) -> None:
    text = manifest_text([*job(order(tmp_path), ALL), cronjob(order(tmp_path), ALL, "0 2 * * *", "Etc/UTC")])
    assert SECRET not in text
    assert "hunter2" not in text
    assert "mlflow:5000" not in text
    (container,) = made(tmp_path, ALL)[1]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("valueFrom") for variable in container["env"]}
    assert variables["WDSEARCH_STORAGE"] == {"secretKeyRef": {"name": "studies", "key": "WDSEARCH_STORAGE"}}
    assert variables["MLFLOW_TRACKING_PASSWORD"]["secretKeyRef"]["optional"] is True


def test_pods_have_few_rights_and_time_to_end(tmp_path: Path) -> None:
    for manifest in made(tmp_path, ALL)[1::2]:
        spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        assert (spec["parallelism"], spec["completions"]) == (3, 3)
        assert pod["restartPolicy"] == "Never"
        assert pod["terminationGracePeriodSeconds"] == 120
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"] == {"cpu": "500m", "memory": "1536Mi", "nvidia.com/gpu": "2"}
        written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written == {"/home/wdsearch", "/tmp"}


@pytest.mark.parametrize("study", ["A_Study.of-mine", "x" * 100, "1e5", "s" + "-" * 60 + "x", "_".join("abcdefgh" * 6)])
def test_names_of_studies_become_names_of_kubernetes(tmp_path: Path, study: str) -> None:
    for manifest in made(tmp_path, FEW, study):
        assert check_manifest(manifest) == []
        assert kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_what_looks_like_a_number_stays_a_text() -> None:
    for text in ("1e5", "12345e67", "0o17", "1.5", "-3", ".5", "1_000", "0x1F", "on", "null", "2026-01-01", "12:30"):
        written = as_yaml({"label": text}, flow=False)
        assert yaml.safe_load(written) == {"label": text}
        assert written in (f"label: '{text}'\n", f'label: "{text}"\n')
    assert as_yaml({"a": {"b": "1\n2\n"}}, flow=False) == "a:\n  b: |\n    1\n    2\n"


def pod(manifest: dict[str, Any]) -> Any:
    return manifest["spec"].get("jobTemplate", manifest)["spec"]["template"]["spec"]


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a value by its path, `pod.` and `container.` being short for where these are."""

    def change(manifest: dict[str, Any]) -> None:
        first, *path = key.split("/")
        place = {
            "pod": lambda: pod(manifest),
            "container": lambda: pod(manifest)["containers"][0],
            "job": lambda: manifest["spec"].get("jobTemplate", manifest)["spec"],
            "spec": lambda: manifest["spec"],
            "metadata": lambda: manifest["metadata"],
        }[first]()
        for name in path[:-1]:
            place = place[int(name) if name.isdigit() else name]
        place[path[-1]] = value

    return change


BAD = [
    ("spec/schedule", "61 * * * *", "spec.schedule is '61 * * * *'; it takes another minute"),
    ("spec/schedule", "0 2 * *", "it takes five fields (minute, hour, day of month, month, day of week)"),
    ("spec/schedule", "@dayly", "it takes five fields, or one of @yearly"),
    ("spec/schedule", "0 0 2 * * *", "these are 6"),
    ("spec/schedule", "0 24 * * *", "another hour"),
    ("spec/schedule", "0 2 0 * *", "another day of month"),
    ("spec/schedule", "0 2 * 13 *", "another month"),
    ("spec/schedule", "0 2 * * 8", "another day of week"),
    ("spec/schedule", "0 2 * * 7", "Kubernetes counts Sunday as 0"),
    ("spec/schedule", "0 2 * * 5-7/7", "Kubernetes counts Sunday as 0"),
    ("spec/schedule", "0 2 * * MOO", "names such as MON as the day of week"),
    ("spec/schedule", "*/0 * * * *", "another minute"),
    ("spec/schedule", "0 5-2 * * *", "another hour"),
    ("spec/schedule", "", "these are 0"),
    ("spec/timeZone", "Berlin", "spec.timeZone is 'Berlin'"),
    ("spec/concurrencyPolicy", "forbid", "it is one of Allow, Forbid, Replace"),
    ("pod/restartPolicy", "Always", "restartPolicy is 'Always'; of a job it is Never or OnFailure"),
    ("pod/restartPolicy", "OnFailure", "podFailurePolicy goes with restartPolicy: Never alone"),
    ("job/parallelism", 0, "parallelism is 0"),
    ("job/backoffLimit", -1, "backoffLimit is -1"),
    ("container/image", "", "image is ''"),
    ("container/image", "my image", "image is 'my image'"),
    ("container/name", "Worker", "name is 'Worker'"),
    ("container/resources/limits", {"memory": "2GiB"}, "limits.memory is '2GiB'; quantities look like"),
    ("container/resources/limits", {"memory": "2 Gi"}, "limits.memory is '2 Gi'"),
    ("container/resources/requests", {"cpu": "half"}, "requests.cpu is 'half'"),
    ("container/resources/requests", {"cpu": "1500m"}, "requests.cpu is '1500m', more than its limit"),
    ("container/volumeMounts/0/name", "studies", "there is no volume 'studies'"),
    ("container/volumeMounts/0/mountPath", "data", "'data' does not begin with /"),
    ("container/env/0/name", "MY VARIABLE", "'MY VARIABLE' is no name of a variable"),
    ("pod/volumes/1/name", "study", "names are given twice"),
    ("pod/containers", [], "there is none"),
    ("metadata/name", "My_Study", "metadata.name is 'My_Study'"),
    ("metadata/name", "x" * 64, "at most"),
    ("metadata/name", "-x", "metadata.name is '-x'"),
    ("metadata/namespace", "a.b", "metadata.namespace is 'a.b'"),
    ("metadata/labels/study", "x" * 64, "metadata.labels.study is"),
    ("metadata/labels/study", "a b", "metadata.labels.study is 'a b'"),
    ("metadata/labels", {"a/b/c": "x"}, "'a/b/c' is no label"),
]


@pytest.mark.parametrize(("key", "value", "fault"), BAD, ids=[f"{key} {value}"[:40] for key, value, _ in BAD])
def test_what_a_cluster_would_refuse_is_said_before(tmp_path: Path, key: str, value: Any, fault: str) -> None:
    manifest = copy.deepcopy(made(tmp_path)[3])
    changed(key, value)(manifest)
    assert any(fault in refusal for refusal in check_manifest(manifest)), check_manifest(manifest)
    with pytest.raises(EngineError) as caught:
        manifest_text([manifest])
    assert fault in str(caught.value)


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    bad = KubernetesOptions(image="", namespace="ML", secret="Se cret", home_claim="My claim")
    with pytest.raises(EngineError) as caught:
        LAUNCHERS["kubernetes"].script(order(tmp_path), bad)
    assert all(text in str(caught.value) for text in ("image is ''", "'ML'", "'Se cret'", "'My claim'"))


@pytest.mark.parametrize(
    "text",
    ["0 2 * * 1", "*/15 0-6,18-23 1,15 JAN-MAR mon-fri", "5/10 * * * */7", "59 23 31 12 6", "0 2 * * SUN,3", "@daily"],
)
def test_sound_cron_texts_pass(tmp_path: Path, text: str) -> None:
    manifest = copy.deepcopy(made(tmp_path)[3])
    manifest["spec"]["schedule"] = text
    assert check_manifest(manifest) == []


@pytest.mark.parametrize(
    ("given", "written"), [("7", "0"), ("FRI-7", "0,5,6"), ("1,7", "0,1"), ("*/7", "0"), ("5", "5"), ("MON", "MON")]
)
def test_sunday_is_written_as_kubernetes_counts_it(tmp_path: Path, given: str, written: str) -> None:
    manifest = cronjob(order(tmp_path), FEW, f"0 2 * * {given}", "UTC")
    assert manifest["spec"]["schedule"] == f"0 2 * * {written}"
    assert check_manifest(manifest) == []


def test_quantities_are_read_as_kubernetes_does() -> None:
    known = {"2": 2.0, "500m": 0.5, "2Gi": 2.0 * 1024**3, "1.5Ki": 1536.0, "1e3": 1000.0, "3E": 3e18, ".5k": 500.0}
    assert {text: quantity(text) for text in known} == known
    assert [quantity(text) for text in ("", "2GiB", "-", "m", "1,5", "2 Gi", True, "K")] == [None] * 8


def test_stopping_and_logs_name_the_command(tmp_path: Path) -> None:
    launcher, path = LAUNCHERS["kubernetes"], str(tmp_path / "1a2b3c4d" / "manifest.yaml")
    with pytest.raises(LaunchError, match=r"kubectl delete -f .*1a2b3c4d/manifest\.yaml"):
        launcher.stop([path], ALL)
    (text,) = launcher.logs([path], tmp_path, ALL).values()
    assert text.startswith("kubectl -n ml logs -l wdsearch/launch=1a2b3c4d")
