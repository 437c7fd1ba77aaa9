"""Checks of manifests beyond the schemas of Kubernetes: cron texts, names, quantities, policies that a cluster refuses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zoneinfo import available_timezones

from wdsearch.study.cron import cron_fault, fields

LONGEST_LABEL, LONGEST_CRON_JOB, LONGEST_SUBDOMAIN = 63, 52, 253
"""Longest names. A job's pods get its name and a suffix, and so do a CronJob's jobs: hence the shorter limit."""
CONFIG_MAP_BYTES = 1024 * 1024
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|[MGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?")
_SIZES = {"": 1.0, "m": 1e-3, "k": 1e3}
_SIZES |= {letter: 1000.0**power for power, letter in enumerate("MGTPE", start=2)}
_SIZES |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}
CONCURRENCY = ("Allow", "Forbid", "Replace")


def check_manifest(manifest: Mapping[str, Any]) -> list[str]:
    """Faults of a ConfigMap, Job or CronJob, each with its location; none if it is valid.

    >>> check_manifest({"kind": "ConfigMap", "metadata": {"name": "Digits"}, "data": {}})[0].partition(";")[0]
    "metadata.name is 'Digits'"
    """
    kind = manifest.get("kind")
    if kind not in _CHECKS:
        return [f"kind is {kind!r}; known are {', '.join(_CHECKS)}"]
    meta, longest = manifest.get("metadata", {}), LONGEST_CRON_JOB if kind == "CronJob" else LONGEST_LABEL
    named = _name(meta.get("name"), "metadata.name", LONGEST_SUBDOMAIN if kind == "ConfigMap" else longest)
    space = _name(meta["namespace"], "metadata.namespace", LONGEST_LABEL) if "namespace" in meta else ()
    return [*named, *space, *_labels(meta, "metadata"), *_CHECKS[kind](manifest)]


def quantity(text: Any) -> float | None:
    """The number that a quantity of Kubernetes stands for; None for a text that is none.

    >>> quantity("500m"), quantity("2Ki"), quantity("two")
    (0.5, 2048.0, None)
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or isinstance(text, bool):
        return None
    suffix = match[2] or ""
    return float(match[1]) * _SIZES[suffix] if suffix in _SIZES else float(match[1] + suffix)


def _name(name: Any, path: str, longest: int) -> Iterator[str]:
    pattern = _SUBDOMAIN if longest == LONGEST_SUBDOMAIN else _LABEL
    if not isinstance(name, str) or not pattern.fullmatch(name):
        dots = ", dots" if pattern is _SUBDOMAIN else ""
        yield f"{path} is {name!r}; a name has small letters, digits{dots} and -, and begins and ends with one of the first two"
    elif len(name) > longest:
        yield f"{path} is {name!r}, of {len(name)} letters; at most {longest} are allowed"


def _labels(meta: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in meta.get("labels", {}).items():
        prefix, slash, name = key.rpartition("/")
        fine = _VALUE.fullmatch(name) and 0 < len(name) <= LONGEST_LABEL
        if not fine or (slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= LONGEST_SUBDOMAIN)):
            yield f"{path}.labels: {key!r} is no label"
        if not isinstance(value, str) or not _VALUE.fullmatch(value) or len(value) > LONGEST_LABEL:
            yield f"{path}.labels.{key} is {value!r}; it takes up to {LONGEST_LABEL} letters, digits, - _ . (not first or last)"


def _config_map(manifest: Mapping[str, Any]) -> Iterator[str]:
    data = manifest.get("data", {})
    for key in data:
        yield from [] if _KEY.fullmatch(key) and len(key) <= LONGEST_SUBDOMAIN else [f"data: {key!r} is no key"]
    size = sum(len(text.encode()) for text in data.values())
    if size > CONFIG_MAP_BYTES:
        yield f"data has {size} bytes; a ConfigMap takes {CONFIG_MAP_BYTES}"


def _cron_job(manifest: Mapping[str, Any]) -> Iterator[str]:
    spec = manifest.get("spec", {})
    yield from _schedule(str(spec.get("schedule", "")))
    zone, policy = spec.get("timeZone", "Etc/UTC"), spec.get("concurrencyPolicy", "Allow")
    if zone not in available_timezones():
        yield f"spec.timeZone is {zone!r}; it is named as in Europe/Berlin or Etc/UTC"
    if policy not in CONCURRENCY:
        yield f"spec.concurrencyPolicy is {policy!r}; it is one of {', '.join(CONCURRENCY)}"
    template = spec.get("jobTemplate", {})
    yield from _labels(template.get("metadata", {}), "spec.jobTemplate.metadata")
    yield from _job(template, "spec.jobTemplate.spec")


def _schedule(cron: str) -> Iterator[str]:
    fault = cron_fault(cron)
    if fault is not None:
        yield f"spec.schedule is {cron!r}; it takes {fault}"
    elif "7" in re.sub(r"/\d+", "", fields(cron).split()[-1]):
        yield f"spec.schedule is {cron!r}; Kubernetes counts Sunday as 0"


def _job(manifest: Mapping[str, Any], path: str = "spec") -> Iterator[str]:
    spec = manifest.get("spec", {})
    for key, least in {"parallelism": 1, "completions": 1, "backoffLimit": 0, "ttlSecondsAfterFinished": 0}.items():
        if key in spec and not (isinstance(spec[key], int) and spec[key] >= least):
            yield f"{path}.{key} is {spec[key]!r}; it is a whole number from {least}"
    template = spec.get("template", {})
    pod, inside = template.get("spec", {}), f"{path}.template"
    policy = pod.get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        yield f"{inside}.spec.restartPolicy is {policy!r}; of a job it is Never or OnFailure"
    if "podFailurePolicy" in spec and policy != "Never":
        yield f"{path}.podFailurePolicy goes with restartPolicy: Never alone"
    yield from _labels(template.get("metadata", {}), f"{inside}.metadata")
    yield from _pod(pod, f"{inside}.spec")


def _pod(pod: Mapping[str, Any], path: str) -> Iterator[str]:
    volumes = [volume.get("name") for volume in pod.get("volumes", [])]
    for index, volume in enumerate(pod.get("volumes", [])):
        yield from _name(volume.get("name"), f"{path}.volumes[{index}].name", LONGEST_LABEL)
        claim = volume.get("persistentVolumeClaim")
        if claim is not None:
            yield from _name(claim.get("claimName"), f"{path}.volumes[{index}].claimName", LONGEST_SUBDOMAIN)
    if len(set(volumes)) < len(volumes):
        yield f"{path}.volumes: names are given twice"
    if not pod.get("containers"):
        yield f"{path}.containers: there is none"
    for index, container in enumerate(pod.get("containers", [])):
        yield from _container(container, f"{path}.containers[{index}]", volumes)


def _container(container: Mapping[str, Any], path: str, volumes: Sequence[str | None]) -> Iterator[str]:
    yield from _name(container.get("name"), f"{path}.name", LONGEST_LABEL)
    image = container.get("image")
    if not isinstance(image, str) or not image or re.search(r"\s", image):
        yield f"{path}.image is {image!r}; it takes the name of an image, such as registry.example.org/wdsearch:1"
    resources = container.get("resources", {})
    limits = {name: quantity(text) for name, text in resources.get("limits", {}).items()}
    for kind in ("requests", "limits"):
        for name, text in resources.get(kind, {}).items():
            number, most = quantity(text), limits.get(name)
            if number is None:
                yield f"{path}.resources.{kind}.{name} is {text!r}; quantities look like 2, 500m or 4Gi"
            elif kind == "requests" and most is not None and number > most:
                yield f"{path}.resources.requests.{name} is {text!r}, more than its limit"
    for mount in container.get("volumeMounts", []):
        if mount.get("name") not in volumes:
            yield f"{path}.volumeMounts: there is no volume {mount.get('name')!r}"
        if not str(mount.get("mountPath", "")).startswith("/"):
            yield f"{path}.volumeMounts: {mount.get('mountPath')!r} does not begin with /"
    for variable in container.get("env", []):
        if not _ENVIRONMENT.fullmatch(str(variable.get("name", ""))):
            yield f"{path}.env: {variable.get('name')!r} is no name of a variable"
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if secret is not None:
            yield from _name(secret.get("name"), f"{path}.env.{variable.get('name')}: the secret", LONGEST_SUBDOMAIN)


_CHECKS = {"ConfigMap": _config_map, "Job": _job, "CronJob": _cron_job}
