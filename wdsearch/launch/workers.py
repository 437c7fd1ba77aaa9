"""Workers of a study on engines: `launch` starts N, `launched` lists their states, `logs` their logs, `stop` ends them."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import Parameter
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.engine import Engine

from wdsearch.launch.engines import (
    ENDED,
    LAUNCHERS,
    RUNNING,
    UNKNOWN,
    WAITING,
    EngineError,
    Launcher,
    LauncherOptions,
    LaunchError,
    Order,
)
from wdsearch.messages import nearest, shown_path, shown_value
from wdsearch.storage.database import backend, shown_url
from wdsearch.storage.home import HOME, STORAGE, Home
from wdsearch.storage.launches import Launch, forget, launches_of, note_jobs, record
from wdsearch.storage.restore import restored
from wdsearch.storage.results import load_result
from wdsearch.strategies.optuna_private import study_id
from wdsearch.study.annotations import annotation_of
from wdsearch.study.file import Location
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.validation import invalid_keys
from wdsearch.tracking import chosen_tracker

LOGINS = ("PGUSER", "PGPASSWORD", "PGPASSFILE")
"""Variables that PostgreSQL reads from the environment beside a URL."""


@dataclass(frozen=True)
class Started:
    """Result of `launch`: the launch, None after a dry run, and the text for the engine (`script`).

    `follow_up` are the next commands by their purpose; `note` is for the user.
    """

    study: str
    engine: str
    workers: int
    script: str
    launch: Launch | None
    follow_up: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


def launch(
    source: str | Path | StudyConfig,
    on: str = "local",
    workers: int = 2,
    options: Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    home: str | Path | None = None,
    storage: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
    attributes: Mapping[str, Any] | None = None,
) -> Started:
    """Start workers of a study, by its file (which begins it) or by the name of one that was begun.

    `options` are those of the engine `on`, `attributes` are stored with a new study. With `dry_run` nothing is started
    and nothing begun. Raises EngineError for a wrong engine or option, LaunchError if the engine refuses, and what `run`
    raises for a faulty study.
    """
    launcher, checked_options = engine_of(on), options_of(on, options or {})
    if workers < 1:
        raise EngineError(f"workers is {workers}; it takes at least 1")
    studies = Home(home)
    config = _config(source, overrides, studies, storage)
    check_shared(launcher, studies, storage, config.tracking)
    recorded = Launch(on, platform.node(), "", (), checked_options.model_dump(exclude_defaults=True))
    folder = studies.folder(config.study) / "launches" / recorded.name
    order = _order(config, workers, folder, studies, storage)
    started = Started(
        config.study, on, workers, launcher.script(order, checked_options), None, note=_idle(config, workers)
    )
    if dry_run:
        return started
    if launcher.renders:
        return _begun(started, recorded, order, checked_options)
    if isinstance(source, StudyConfig) or is_file(source):
        from wdsearch.search.run import begin

        begin(config, studies, storage, progress, attributes)
    opened, engine = studies.load_with_engine(config.study, storage)
    record(engine, study_id(opened), replace(recorded, folder=str(folder)))  # a crash from here on leaves a trace
    return _noted(engine, started, recorded, order, checked_options)


def _noted(engine: Engine, started: Started, recorded: Launch, order: Order, options: LauncherOptions) -> Started:
    """Start the workers of a recorded launch, and record their jobs; a launch that is refused is removed."""
    try:
        begun = _begun(started, recorded, order, options)
    except LaunchError:
        forget(engine, recorded.name)
        raise
    note_jobs(engine, recorded.name, begun.launch.jobs if begun.launch else ())
    return begun


def _idle(config: StudyConfig, workers: int) -> str | None:
    """A note for a budget that cannot keep all workers busy: each takes two batches at first."""
    trials, share = config.budget.trials, 2 * config.batch
    busy = -(-trials // share)
    if workers <= busy:
        return None
    busy_workers = f"at most {busy} of {workers} workers have" if busy > 1 else f"one of {workers} workers has"
    reason = f"{busy_workers} something to train at a time: each begins with two batches of {config.batch} of the {trials} trials"
    batch = trials // (2 * workers)
    return (
        f"{reason}; in a new study with search.batch={batch} all have"
        if batch
        else f"{reason}; {trials} are too few for {workers}"
    )


def _begun(started: Started, recorded: Launch, order: Order, options: LauncherOptions) -> Started:
    launcher = LAUNCHERS[recorded.engine]
    order.folder.mkdir(parents=True)
    recorded = replace(recorded, folder=str(order.folder), jobs=tuple(launcher.start(order, options)))
    return replace(started, launch=recorded, follow_up=launcher.follow_up(order.study, recorded.jobs, options))


@dataclass(frozen=True)
class LaunchStatus:
    """A launch and the present state of each of its jobs, by the engine's names; `fault` says why an engine does not answer.

    >>> status = LaunchStatus(Launch("slurm", "login1", "/logs", ("12_0",), {}), {"12_0": RUNNING})
    >>> status.is_open
    True
    """

    launch: Launch
    states: dict[str, str]
    fault: str = ""

    @property
    def is_open(self) -> bool:
        """True if a job waits or runs."""
        return any(state in (WAITING, RUNNING) for state in self.states.values())

    def as_dict(self) -> dict[str, Any]:
        """A record for JSON."""
        launch = self.launch
        record = {"name": launch.name, "engine": launch.engine, "node": launch.node, "jobs": self.states}
        return record | ({"fault": self.fault} if self.fault else {})


def launched(study: str, home: Home, storage: str | None = None) -> list[LaunchStatus]:
    """A study's launches and their states; raises StudyNotFoundError."""
    opened, engine = home.load_with_engine(study, storage)
    return [_status(launch) for launch in launches_of(engine, study_id(opened))]


def stop(study: str, home: Home, storage: str | None = None) -> list[LaunchStatus]:
    """Ask a study's launched workers to end in order; returns the launches that had not ended, with their states afterwards.

    Other workers, or later ones, go on with their trials. If one engine does not answer, the others still end theirs. Raises
    StudyNotFoundError.
    """
    statuses = launched(study, home, storage)
    return [_stopped(status) for status in statuses if status.fault or _jobs_left(status)]


def _jobs_left(status: LaunchStatus) -> list[str]:
    return [job for job, state in status.states.items() if state != ENDED]


def _stopped(status: LaunchStatus) -> LaunchStatus:
    left = _jobs_left(status)
    if not _is_reachable(status.launch):
        return status
    launcher, options = _engine_of(status.launch)
    try:
        launcher.stop(left, options)
        return LaunchStatus(status.launch, launcher.states(left, options))
    except LaunchError as error:
        return replace(status, fault=str(error))


def logs(study: str, home: Home, storage: str | None = None) -> dict[str, str]:
    """Logs of a study's launched workers, by launch and worker, or why there are none; raises StudyNotFoundError."""
    opened, engine = home.load_with_engine(study, storage)
    by_title: dict[str, str] = {}
    for launch in launches_of(engine, study_id(opened)):
        title = f"{launch.engine} {launch.name}"
        if not _is_reachable(launch):
            by_title[title] = f"these logs are on {launch.node}, in {launch.folder}\n"
            continue
        launcher, options = _engine_of(launch)
        try:
            texts = launcher.logs(launch.jobs, Path(launch.folder), options)
            by_title |= {f"{title}: {job}": text for job, text in texts.items()}
            if not texts:
                by_title[title] = f"nothing yet in {launch.folder}, as far as this machine sees it\n"
        except LaunchError as error:
            by_title[title] = f"{error}\n"
    return by_title


def engine_of(name: str) -> Launcher[Any]:
    """An engine by its name; raises EngineError.

    >>> engine_of("local").summary
    'processes on this machine'
    """
    if name not in LAUNCHERS:
        raise EngineError(f"there is no engine {shown_value(name)}{nearest(name, LAUNCHERS)}")
    return LAUNCHERS[name]


def options_of(name: str, options: Mapping[str, Any]) -> LauncherOptions:
    """An engine's options, checked; raises EngineError with all faults.

    >>> options_of("local", {"threads": 2})
    LocalOptions(threads=2)
    """
    kind = engine_of(name).options

    def unknown(location: Location) -> str:
        option = shown_path(location)
        return f"{name} has no option {shown_value(option)}{nearest(option, kind.model_fields)}"

    def missing(location: Location) -> str:
        option = shown_path(location)
        return f"{name} needs the option {option}: -o {option}=..."

    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        faults = [text for _, text in invalid_keys(error, (), unknown, missing)]
        raise EngineError("\n".join(faults)) from None


def engines() -> list[dict[str, Any]]:
    """All engines with their options, as JSON can hold them.

    >>> [engine["name"] for engine in engines()][:2]
    ['local', 'slurm']
    """
    return [
        {"name": name, "summary": launcher.summary, "arguments": _options_of(launcher.options)}
        for name, launcher in LAUNCHERS.items()
    ]


def _options_of(kind: type[LauncherOptions]) -> list[dict[str, Any]]:
    from wdsearch.study.catalog import (  # loads torch, which `status` does without
        NEEDED,
        Argument,
    )

    arguments = []
    for name, field_ in kind.model_fields.items():
        takes = annotation_of(Parameter(name, Parameter.KEYWORD_ONLY, annotation=field_.annotation))
        default = NEEDED if field_.is_required() else field_.get_default(call_default_factory=True)
        arguments.append(Argument(name, takes, default).as_dict() | {"about": field_.description or ""})
    return arguments


def check_shared(launcher: Launcher[Any], home: Home, storage: str | None, tracking: Any = None) -> None:
    """Raise EngineError if workers on several machines could not share the storage, or a study's tracker.

    >>> check_shared(engine_of("local"), Home(), "sqlite:///optuna.db")
    """
    tracker, _ = chosen_tracker(tracking)
    if not launcher.spans or launcher.renders:
        return
    faults = []
    if backend(home.url(storage)) == "sqlite":
        faults.append(
            f"storage {shown_url(home.url(storage))} is a file of one machine; workers on several need a server: "
            f"--storage postgresql://user@host/name (or ${STORAGE}); see: wdsearch storage check URL"
        )
    if fault := tracker.shared_fault():
        faults.append(fault)
    if faults:
        raise EngineError("\n".join([f"the engine {launcher.name} may use several machines:", *faults]))


def is_file(source: str | Path) -> bool:
    """True of a study file, rather than a study's name.

    >>> is_file("digits.yaml"), is_file("digits")
    (True, False)
    """
    return Path(source).suffix in (".yaml", ".yml") or Path(source).is_file()


def _config(source: str | Path | StudyConfig, overrides: Sequence[str], home: Home, storage: str | None) -> StudyConfig:
    if isinstance(source, StudyConfig) or is_file(source):
        return load_study(source, overrides)
    if overrides:
        raise EngineError(f"{source!s} was begun already: --set goes with a study file; known is {source!s}.yaml?")
    return restored(load_result(str(source), home, storage), None, "wdsearch.run(...)")


def _order(config: StudyConfig, workers: int, folder: Path, home: Home, storage: str | None) -> Order:
    command = [sys.executable, "-m", "wdsearch.cli", "work", config.study]
    environment = {HOME: str(home.path), STORAGE: home.url(storage)}
    tracker, _ = chosen_tracker(config.tracking)
    inherited = (*tracker.addresses, *tracker.logins, *LOGINS)
    environment |= {name: os.environ[name] for name in inherited if name in os.environ}
    return Order(config.study, workers, command, environment, folder, config.dump())


def _is_reachable(launch: Launch) -> bool:
    return LAUNCHERS[launch.engine].spans or launch.node == platform.node()


def _engine_of(launch: Launch) -> tuple[Launcher[Any], LauncherOptions]:
    return LAUNCHERS[launch.engine], options_of(launch.engine, launch.options)


def _status(launch: Launch) -> LaunchStatus:
    unknown = dict.fromkeys(launch.jobs, UNKNOWN)
    if not _is_reachable(launch):
        return LaunchStatus(launch, unknown)
    launcher, options = _engine_of(launch)
    try:
        return LaunchStatus(launch, launcher.states(launch.jobs, options))
    except LaunchError as error:
        return LaunchStatus(launch, unknown, str(error))
