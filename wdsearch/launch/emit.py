"""Writes schedules as text for other schedulers: crontab, systemd, Slurm, Kubernetes. Nothing is started here.

All of them call the same command, `wdsearch schedule FILE --once`, which claims each due time in the storage: called twice, or
late, it starts a sweep once.
"""

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdsearch.launch.engines import Order
from wdsearch.launch.study_folder import Entry
from wdsearch.launch.workers import LOGINS, EngineError, options_of
from wdsearch.messages import nearest, shown_time, shown_value
from wdsearch.storage.database import has_password
from wdsearch.storage.home import HOME, STORAGE, Home
from wdsearch.study.cron import DAYS, fields, next_fire, numbers
from wdsearch.tracking import chosen_tracker

_COUNTS = (60, 24, 31, 12)
"""Minutes, hours, days and months that there are."""


@dataclass(frozen=True)
class Job:
    """A job for another scheduler: a command in an environment.

    `secret` names variables that are left out, for they hold passwords; `options` are those of Kubernetes, `folder` is for logs.
    """

    entry: Entry
    command: Sequence[str]
    environment: Mapping[str, str]
    secret: Sequence[str]
    options: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """The job's name in the scheduler."""
        return f"wdsearch-{self.entry.family}"

    @property
    def about(self) -> str:
        """The job's purpose, in a line."""
        plan = self.entry.plan
        return f"sweeps of {self.entry.path}: {fields(plan.cron)}, {plan.timezone}"


def emit(
    form: str, entries: Sequence[Entry], home: Home, storage: str | None, options: Mapping[str, Any], now: float
) -> str:
    """The schedules in one of the `FORMS`; `options` go to that of Kubernetes. Raises EngineError.

    >>> from wdsearch.study.load import load_study
    >>> content = {"study": "digits", "data": {"name": "digits"}, "model": {"name": "mlp"}}
    >>> content |= {"space": {"weight_decay": {"low": 0.01, "high": 1.0}}, "schedule": {"cron": "0 2 * * 1"}}
    >>> entry = Entry(Path("digits.yaml"), load_study(content | {"budget": {"trials": 8, "epochs": 2}}))
    >>> print(emit("crontab", [entry], Home("studies"), None, {}, now=0.0))
    # sweeps of digits.yaml: 0 2 * * 1, UTC
    # cronie reads CRON_TZ; ...
    CRON_TZ=UTC
    0 2 * * 1 WDSEARCH_HOME=... schedule ...digits.yaml --once
    <BLANKLINE>
    """
    if form not in FORMS:
        raise EngineError(f"there is no form {shown_value(form)}{nearest(form, FORMS)}")
    jobs = [_job(form, entry, home, storage, options) for entry in entries]
    return ("---\n" if form == "cronjob" else "\n").join(FORMS[form](job, now) for job in jobs)


def _job(form: str, entry: Entry, home: Home, storage: str | None, options: Mapping[str, Any]) -> Job:
    """The job of an entry; on Slurm, which ends with a job all that it started, the job itself is the worker."""
    here_option = ["--here"] if entry.plan.on == "local" and form == "sbatch" else []
    command = [sys.executable, "-m", "wdsearch.cli", "schedule", str(entry.path.absolute()), "--once", *here_option]
    tracker, _ = chosen_tracker(entry.config.tracking)
    variables = {HOME: str(home.path), STORAGE: storage or os.environ.get(STORAGE)}
    variables |= {name: os.environ.get(name) for name in tracker.addresses}
    set_variables = {name: value for name, value in variables.items() if value}
    secret = [name for name, value in set_variables.items() if has_password(value)]
    secret += [login for login in (*tracker.logins, *LOGINS) if login in os.environ]
    public = {name: value for name, value in set_variables.items() if name not in secret}
    return Job(entry, command, public, secret, options, home.folder(entry.family))


def _crontab(job: Job, now: float) -> str:
    plan = job.entry.plan
    secret_notes = [f"# {name} may be secret: set it here" for name in job.secret]
    assignments = [f"{name}={shlex.quote(value)}" for name, value in job.environment.items()]
    command = " ".join([*assignments, shlex.join(job.command)]).replace("%", r"\%")
    lines = [
        f"# {job.about}",
        "# cronie reads CRON_TZ; Debian's cron does not: unless that is the machine's own time zone, change the times",
        *secret_notes,
        f"CRON_TZ={plan.timezone}",
        f"{fields(plan.cron)} {command}",
    ]
    return "\n".join(lines) + "\n"


def _systemd(job: Job, now: float) -> str:
    plan, unit = job.entry.plan, job.name
    environment = [f'Environment="{name}={_unit(value)}"' for name, value in job.environment.items()]
    environment += [f"# with {name}=..., which may be secret\nEnvironmentFile=/etc/{unit}.env" for name in job.secret]
    command = " ".join(f'"{_unit(word).replace("$", "$$")}"' for word in job.command)
    service = [
        "[Unit]", f"Description={_unit(job.about)}", "",
        "[Service]", "Type=oneshot", *environment, f"ExecStart={command}",
        "# workers of this machine outlive the command that starts them", "KillMode=process",
    ]  # fmt: skip
    timer = [
        "[Unit]", f"Description={_unit(job.about)}", "",
        "[Timer]", *(f"OnCalendar={calendar}" for calendar in calendars(plan.cron, plan.timezone)),
        f"Persistent={str(plan.catch_up != 'none').lower()}", "AccuracySec=1s", "",
        "[Install]", "WantedBy=timers.target",
    ]  # fmt: skip
    folder = "/etc/systemd/system"
    heads = f"# {folder}/{unit}.service", f"# {folder}/{unit}.timer; then: systemctl enable --now {unit}.timer"
    return "\n".join([heads[0], *service, "", heads[1], *timer, ""])


def _unit(text: str) -> str:
    r"""A text escaped for a unit file, in which % begins a specifier, and " and \ are special."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def calendars(cron: str, zone: str) -> list[str]:
    """Cron's five fields as values of systemd's OnCalendar, any of which is due: two where both day fields are restricted.

    >>> calendars("0 2 * * 1", "Europe/Berlin")
    ['Mon *-*-* 02:00:00 Europe/Berlin']
    """
    _, _, day, _, weekday = fields(cron).split()
    *times, week = numbers(cron)
    minutes, hours, days, months = [_listed(time, count) for time, count in zip(times, _COUNTS, strict=True)]
    names = "" if len(week) == 7 else ",".join(DAYS[number].title() for number in week) + " "
    clock = f"{hours}:{minutes}:00 {zone}"
    if not day.startswith("*") and not weekday.startswith("*"):
        return [f"*-{months}-{days} {clock}", f"{names}*-{months}-* {clock}"]
    return [f"{names}*-{months}-{days} {clock}"]


def _listed(times: Sequence[int], count: int) -> str:
    return "*" if len(times) == count else ",".join(f"{time:02}" for time in times)


def _sbatch(job: Job, now: float) -> str:
    plan, log = job.entry.plan, str(job.folder).replace("%", "%%") + "/schedule-%j.log"
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    exports += [f"# {name} may be secret: let sbatch inherit it from the environment" for name in job.secret]
    ask_next = shlex.join([*job.command[:5], "--next"])
    first = shown_time(next_fire(plan.cron, plan.timezone, now))
    options = plan.options if plan.on == "slurm" else {}
    several = plan.on == "local" and plan.workers > 1
    directives = [f"#SBATCH --{name}={options[name]}" for name in ("partition", "account", "qos") if name in options]
    directives += ["#SBATCH --nodes=1", f"#SBATCH --ntasks={plan.workers}"] if several else []
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.name}", "#SBATCH --dependency=singleton", f'#SBATCH --output="{log}"', *directives,
        f"# {job.about}",
        "# Slurm has no cron of its own in many places: each run submits the next one first. Begin with",
        f'#   mkdir -p {shlex.quote(str(job.folder))} && sbatch --begin="$(date -d {first} +%Y-%m-%dT%H:%M:%S)" THIS_FILE',
        f"# and end it with: scancel --name={job.name}",
        *exports,
        f'next=$({ask_next} | head -n 1 | cut -d " " -f 1)',
        # without an answer `date` would say today's midnight, and the next run begin at once, for ever
        '[ -n "$next" ] || { echo "no next time is known: is the study file sound? Once more in an hour" >&2; next="1 hour"; }',
        # a job that Slurm requeued has submitted it already; a controller that is busy is asked until it answers
        'if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then',
        '  until sbatch --begin="$(date -d "$next" +%Y-%m-%dT%H:%M:%S)" "$0"; do sleep 60; done',
        "fi",
        f"exec {'srun ' if several else ''}{shlex.join(job.command)}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cronjob(job: Job, now: float) -> str:
    """A CronJob, written by the engine of Kubernetes, which knows images, volumes and accounts; its pods are the workers."""
    try:
        kubernetes = importlib.import_module("wdsearch.launch.engines.kubernetes")
    except ImportError:
        raise EngineError("this wdsearch has no engine kubernetes to make a CronJob with") from None
    plan, family = job.entry.plan, job.entry.family
    plan_options = plan.options if plan.on == "kubernetes" else {}
    options = options_of("kubernetes", {**plan_options, **job.options})
    command = ["wdsearch", "schedule", f"{kubernetes.STUDY}/{family}.yaml", "--once", "--here"]
    order = Order(family, plan.workers, command, {}, job.folder, job.entry.config.dump())
    concurrency = "Allow" if plan.overlap == "queue" else "Forbid"
    manifest = kubernetes.cronjob(order, options, fields(plan.cron), plan.timezone, concurrency, command)
    return str(kubernetes.manifest_text([kubernetes.cron_study(order, options), manifest]))


FORMS: dict[str, Callable[[Job, float], str]] = {
    "cronjob": _cronjob,
    "crontab": _crontab,
    "systemd": _systemd,
    "sbatch": _sbatch,
}
