"""Workers as a Kubernetes Job, or on a schedule as a CronJob: manifests for the user's kubectl; no cluster is contacted.

A pod's disk is lost with the pod unless `home_claim` names one that stays. Lost then are records of single epochs
that the tracker has not delivered yet, and checkpoints: trials are trained again from their start. Results are in the storage.
A pod that is asked to end has two minutes to deliver.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wdsearch.launch.engines._base import UNKNOWN, EngineError, Launcher, LauncherOptions, LaunchError, Order
from wdsearch.launch.engines._manifest import LONGEST_CRON_JOB, LONGEST_LABEL, check_manifest
from wdsearch.storage.home import STORAGE
from wdsearch.study.cron import numbers
from wdsearch.study.file import as_yaml
from wdsearch.tracking import chosen_tracker

STUDY = "/study"
HOME = "/home/wdsearch"
TEMPORARY = "/tmp"
STOPPING_S = 120
WRONG_CALL = 2
"""A worker's exit code after which a retry cannot help: a faulty study file. (A failed download may succeed later.)"""
SUFFIX = 12
"""Characters left free in a job's name, for the suffixes of its pods' names."""


class KubernetesOptions(LauncherOptions):
    """Options of the pods."""

    image: str
    """Image that has wdsearch, the driver of the storage, and the study's user-defined modules and data; it runs as any user."""
    namespace: str | None = None
    """Namespace; by default that of kubectl's context."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores of each worker."""
    memory_gb: float = Field(default=4, gt=0)
    """Memory of each worker."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of each worker."""
    gpu_kind: str = "nvidia.com/gpu"
    """Name of the cluster's GPU resource."""
    secret: str = "wdsearch"
    """Secret that has WDSEARCH_STORAGE, MLFLOW_TRACKING_URI and, if needed, MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN."""
    home_claim: str | None = None
    """PersistentVolumeClaim for the studies' folder, ReadWriteMany on several nodes; by default each pod has its own disk."""
    claims: dict[str, str] = Field(default_factory=dict)
    """Further PersistentVolumeClaims, read only, by the folder where each is mounted: {/data: patients}."""
    user: int = Field(default=1000, gt=0)
    """Number of the user, and of the group, as which the pods run."""
    retries: int = Field(default=20, ge=0)
    """Failures of workers that are allowed in all; evictions and preemptions by the cluster do not count."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints of nodes that are tolerated, as Kubernetes writes them."""
    pull_secret: str | None = None
    """Secret with the login of the image's registry."""


class Kubernetes(Launcher[KubernetesOptions]):
    """Writes manifest.yaml; it is applied, watched and deleted with kubectl."""

    name = "kubernetes"
    summary = "a Job for kubectl"
    options = KubernetesOptions
    spans = True
    renders = True

    def script(self, order: Order, options: KubernetesOptions) -> str:
        """The manifest: a ConfigMap with the study, and a Job."""
        return manifest_text(job(order, options))

    def start(self, order: Order, options: KubernetesOptions) -> list[str]:
        """Write the manifest; the only job is its path."""
        path = order.folder / "manifest.yaml"
        path.write_text(self.script(order, options))
        return [str(path)]

    def follow_up(self, study: str, jobs: Sequence[str], options: KubernetesOptions) -> dict[str, str]:
        """The commands for the manifest, by their purpose."""
        pods = f"-l wdsearch/launch={Path(jobs[0]).parent.name}"
        return {
            "start": f"kubectl apply -f {shlex.quote(jobs[0])}",
            "status": f"{_kubectl(options)} get pods {pods}",
            "logs": f"{_kubectl(options)} logs {pods} --prefix --follow --max-log-requests 100",
            "end them": f"kubectl delete -f {shlex.quote(jobs[0])}",
        }

    def states(self, jobs: Sequence[str], options: KubernetesOptions) -> dict[str, str]:
        """Unknown states: only kubectl knows them."""
        return dict.fromkeys(jobs, UNKNOWN)

    def stop(self, jobs: Sequence[str], options: KubernetesOptions) -> None:
        """Raise LaunchError with the command that ends the jobs."""
        raise LaunchError("\n".join(f"the cluster is kubectl's: kubectl delete -f {shlex.quote(job)}" for job in jobs))

    def logs(self, jobs: Sequence[str], folder: Path, options: KubernetesOptions) -> dict[str, str]:
        """The command that shows the logs."""
        return {job: f"{self.follow_up('', [job], options)['logs']}\n" for job in jobs}


def job(order: Order, options: KubernetesOptions) -> list[dict[str, Any]]:
    """A ConfigMap and a Job whose name is that of the launch: a finished job of that name would not start again.

    >>> order = Order("digits", 2, ["wdsearch"], {}, Path("launches/1a2b3c4d"), {"study": "digits"})
    >>> study, job_of_study = job(order, KubernetesOptions(image="registry.example.org/wdsearch:1"))
    >>> job_of_study["metadata"]["name"], job_of_study["spec"]["parallelism"]
    ('wdsearch-digits-1a2b3c4d', 2)
    """
    launch = order.folder.name
    room = LONGEST_LABEL - SUFFIX - len(launch) - 1
    meta = _metadata(f"{_named(order.study, room)}-{launch}", order.study, options, {"wdsearch/launch": launch})
    spec = _job_spec(order, options, meta, None)
    return [_study(order, meta), {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}]


def cronjob(
    order: Order,
    options: KubernetesOptions,
    schedule: str,
    timezone: str,
    concurrency: Literal["Forbid", "Allow", "Replace"] = "Forbid",
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A CronJob whose pods run `command` instead of the study, whose file is mounted where `cron_study` puts it.

    >>> order = Order("digits", 2, ["wdsearch"], {}, Path("launches/1a2b3c4d"), {"study": "digits"})
    >>> options = KubernetesOptions(image="registry.example.org/wdsearch:1")
    >>> cronjob(order, options, "0 2 * * 1", "Europe/Berlin")["spec"]["timeZone"]
    'Europe/Berlin'
    """
    meta = _metadata(_named(order.study, LONGEST_CRON_JOB), order.study, options)
    spec = {
        "schedule": _schedule(schedule),
        "timeZone": timezone,
        "concurrencyPolicy": concurrency,
        "startingDeadlineSeconds": 600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": meta["labels"]}, "spec": _job_spec(order, options, meta, command)},
    }
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec}


def _schedule(cron: str) -> str:
    """A cron text with Sunday as 0, the only number that Kubernetes takes for it."""
    *others, weekday = cron.split()
    return " ".join([*others, ",".join(map(str, numbers(cron)[-1])) if "7" in weekday else weekday])


def cron_study(order: Order, options: KubernetesOptions) -> dict[str, Any]:
    """The ConfigMap that goes with `cronjob`: the study's file, as /study/NAME.yaml in the pods.

    >>> order = Order("digits", 2, ["wdsearch"], {}, Path("launches/1a2b3c4d"), {"study": "digits"})
    >>> cron_study(order, KubernetesOptions(image="registry.example.org/wdsearch:1"))["data"]
    {'digits.yaml': '{study: digits}\\n'}
    """
    return _study(order, _metadata(_named(order.study, LONGEST_CRON_JOB), order.study, options))


def manifest_text(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Manifests as YAML; raises EngineError with all that a cluster would refuse.

    >>> print(manifest_text([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits"}, "data": {}}]))
    apiVersion: v1
    kind: ConfigMap
    metadata:
      name: digits
    data: {}
    <BLANKLINE>
    """
    faults = [f"{manifest['kind']}: {fault}" for manifest in manifests for fault in check_manifest(manifest)]
    if faults:
        raise EngineError("\n".join(["this is no manifest for Kubernetes:", *faults]))
    return "---\n".join(as_yaml(_plain(manifest), flow=False) for manifest in manifests)


def _kubectl(options: KubernetesOptions) -> str:
    return f"kubectl -n {options.namespace}" if options.namespace else "kubectl"


def _named(study: str, longest: int) -> str:
    """A study's name as Kubernetes takes it."""
    word = re.sub(r"[^a-z0-9]+", "-", study.lower())
    return f"wdsearch-{word}"[:longest].strip("-")


def _metadata(
    name: str, study: str, options: KubernetesOptions, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    all_labels = {
        "app.kubernetes.io/name": "wdsearch",
        "wdsearch/study": study[:LONGEST_LABEL].strip("-_."),
        **(labels or {}),
    }
    space = {"namespace": options.namespace} if options.namespace else {}
    return {"name": name, **space, "labels": all_labels}


def _study(order: Order, meta: Mapping[str, Any]) -> dict[str, Any]:
    data = {f"{order.study}.yaml": as_yaml(order.content)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(meta), "data": data}


def _job_spec(
    order: Order, options: KubernetesOptions, meta: Mapping[str, Any], command: Sequence[str] | None
) -> dict[str, Any]:
    """A Job's spec: each of N workers has to succeed, and a lost one is replaced, also while the last one concludes the study.

    (With `completions` unset, no worker would be started after the first success.) Evictions and preemptions by the
    cluster do not count as failures.
    """
    lost = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    codes = {"containerName": "worker", "operator": "In", "values": [WRONG_CALL]}
    return {
        "parallelism": order.workers,
        "completions": order.workers,
        "backoffLimit": options.retries,
        "podFailurePolicy": {"rules": [lost, {"action": "FailJob", "onExitCodes": codes}]},
        "template": {"metadata": {"labels": meta["labels"]}, "spec": _pod(order, options, meta["name"], command)},
    }


def _pod(order: Order, options: KubernetesOptions, study: str, command: Sequence[str] | None) -> dict[str, Any]:
    user = options.user
    home = {"persistentVolumeClaim": {"claimName": options.home_claim}} if options.home_claim else {"emptyDir": {}}
    volumes: dict[str, Any] = {"study": {"configMap": {"name": study}}, "home": home, "temporary": {"emptyDir": {}}}
    volumes |= {
        f"claim-{index}": {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for index, claim in enumerate(options.claims.values())
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": STOPPING_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(order, options, command)],
        "volumes": [{"name": name, **volume} for name, volume in volumes.items()],
    }
    pod |= {"nodeSelector": options.node_selector} if options.node_selector else {}
    pod |= {"tolerations": list(options.tolerations)} if options.tolerations else {}
    return pod | ({"imagePullSecrets": [{"name": options.pull_secret}]} if options.pull_secret else {})


def _container(order: Order, options: KubernetesOptions, command: Sequence[str] | None) -> dict[str, Any]:
    requested = {"cpu": f"{round(options.cpus * 1000)}m", "memory": f"{round(options.memory_gb * 1024)}Mi"}
    requested |= {options.gpu_kind: str(options.gpus)} if options.gpus else {}
    variables = {"WDSEARCH_HOME": f"{HOME}/.wdsearch", "HOME": HOME, "USER": "wdsearch"}
    variables |= {"OMP_NUM_THREADS": str(max(1, int(options.cpus))), "PYTHONUNBUFFERED": "1"}
    mounts = {"study": STUDY, "home": HOME, "temporary": TEMPORARY}
    mounts |= {f"claim-{index}": folder for index, folder in enumerate(options.claims)}
    writable = ("home", "temporary")
    return {
        "name": "worker",
        "image": options.image,
        "command": list(command or ["wdsearch", "run", f"{STUDY}/{order.study}.yaml"]),
        "workingDir": HOME,
        "env": [{"name": name, "value": value} for name, value in variables.items()]
        + [_from_secret(options.secret, name, optional) for name, optional in _secrets(order).items()],
        "resources": {"requests": requested, "limits": requested},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path, **({} if name in writable else {"readOnly": True})}
            for name, path in mounts.items()
        ],
    }


def _secrets(order: Order) -> dict[str, bool]:
    """Variables that the pods take from the secret, and whether they may be missing there."""
    tracker, _ = chosen_tracker(order.content.get("tracking"))
    return dict.fromkeys((STORAGE, *tracker.addresses), False) | dict.fromkeys(tracker.logins, True)


def _from_secret(secret: str, name: str, optional: bool) -> dict[str, Any]:
    key = {"name": secret, "key": name} | ({"optional": True} if optional else {})
    return {"name": name, "valueFrom": {"secretKeyRef": key}}


def _plain(value: Any) -> Any:
    """A copy in which no object occurs twice: YAML would write it as an alias."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
