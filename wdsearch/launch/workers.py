"""Workers of a study on engines: `launch` starts N, `launched` says how they are, `stop` ends them."""

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
from wdsearch.messages import nearest, shown_value
from wdsearch.storage.database import backend, shown_url
from wdsearch.storage.home import HOME, STORAGE, Home
from wdsearch.storage.launches import Launch, forget, launches_of, note_jobs, record
from wdsearch.storage.restore import restored
from wdsearch.storage.results import load_result
from wdsearch.study.annotations import annotation_of
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.tracking import chosen_tracker

LOGINS = ("PGUSER", "PGPASSWORD", "PGPASSFILE")
"""What PostgreSQL takes from the environment beside a URL."""


@dataclass(frozen=True)
class Started:
    """What `launch` did: the launch, or what would have been given to the engine (`script`).

    `follow_up` are the commands for what comes next, by what they do; `note` is worth saying.
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

    `options` are those of the engine `on`, `attributes` are kept with a study that is new. With `dry_run` nothing is started
    and nothing begun. Raises EngineError for a wrong engine or option, LaunchError if the engine refuses, and what `run`
    raises for a faulty study.
    """
    launcher, given = engine_of(on), options_of(on, options or {})
    if workers < 1:
        raise EngineError(f"workers is {workers}; it takes at least 1")
    place = Home(home)
    config = _config(source, overrides, place, storage)
    check_shared(launcher, place, storage, config.tracking)
    made = Launch(on, platform.node(), "", (), given.model_dump(exclude_defaults=True))
    folder = place.folder(config.study) / "launches" / made.name
    order = _order(config, workers, folder, place, storage)
    started = Started(config.study, on, workers, launcher.script(order, given), None, note=_idle(config, workers))
    if dry_run:
        return started
    if launcher.renders:
        return _begun(started, made, order, given)
    if isinstance(source, StudyConfig) or is_file(source):
        from wdsearch.search.run import begin

        begin(config, place, storage, progress, attributes)
    opened, engine = place.load_with_engine(config.study, storage)
    record(engine, opened._study_id, replace(made, folder=str(folder)))  # whoever dies now leaves a trace
    return _noted(engine, started, made, order, given)


def _noted(engine: Engine, started: Started, made: Launch, order: Order, options: LauncherOptions) -> Started:
    """Start the workers of a launch that is recorded, and keep as which jobs; of one that is refused nothing stays."""
    try:
        done = _begun(started, made, order, options)
    except LaunchError:
        forget(engine, made.name)
        raise
    note_jobs(engine, made.name, done.launch.jobs if done.launch else ())
    return done


def _idle(config: StudyConfig, workers: int) -> str | None:
    """What to say if a budget cannot keep all workers busy: each takes two batches at first."""
    trials, share = config.budget.trials, 2 * config.batch
    busy = -(-trials // share)
    if workers <= busy:
        return None
    some = f"at most {busy} of {workers} workers have" if busy > 1 else f"one of {workers} workers has"
    why = f"{some} something to train at a time: each begins with two batches of {config.batch} of the {trials} trials"
    fit = trials // (2 * workers)
    return (
        f"{why}; in a new study with search.batch={fit} all have"
        if fit
        else f"{why}; {trials} are too few for {workers}"
    )


def _begun(started: Started, made: Launch, order: Order, options: LauncherOptions) -> Started:
    launcher = LAUNCHERS[made.engine]
    order.folder.mkdir(parents=True)
    made = replace(made, folder=str(order.folder), jobs=tuple(launcher.start(order, options)))
    return replace(started, launch=made, follow_up=launcher.follow_up(order.study, made.jobs, options))


@dataclass(frozen=True)
class LaunchStatus:
    """A launch and what its jobs do now, by the engine's names of them; `fault` is why an engine does not answer."""

    launch: Launch
    states: dict[str, str]
    fault: str = ""

    @property
    def is_open(self) -> bool:
        """Whether a job waits or runs."""
        return any(state in (WAITING, RUNNING) for state in self.states.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        launch = self.launch
        found = {"name": launch.name, "engine": launch.engine, "node": launch.node, "jobs": self.states}
        return found | ({"fault": self.fault} if self.fault else {})


def launched(study: str, home: Home, storage: str | None = None) -> list[LaunchStatus]:
    """A study's launches and how they are; raises StudyNotFoundError."""
    opened, engine = home.load_with_engine(study, storage)
    return [_status(launch) for launch in launches_of(engine, opened._study_id)]


def stop(study: str, home: Home, storage: str | None = None) -> list[LaunchStatus]:
    """Ask a study's launched workers to end in order; those that did not end before, and how they are then.

    What they train is taken up by others, or by the next ones. An engine that does not answer keeps no other from ending its
    own. Raises StudyNotFoundError.
    """
    found = launched(study, home, storage)
    return [_stopped(one) for one in found if one.fault or any(state != ENDED for state in one.states.values())]


def _stopped(found: LaunchStatus) -> LaunchStatus:
    left = [job for job, state in found.states.items() if state != ENDED]
    if not _is_reachable(found.launch):
        return found
    launcher, options = _engine_of(found.launch)
    try:
        launcher.stop(left, options)
        return LaunchStatus(found.launch, launcher.states(left, options))
    except LaunchError as error:
        return replace(found, fault=str(error))


def logs(study: str, home: Home, storage: str | None = None) -> dict[str, str]:
    """What a study's launched workers have said, by launch and worker, or why not; raises StudyNotFoundError."""
    opened, engine = home.load_with_engine(study, storage)
    found: dict[str, str] = {}
    for launch in launches_of(engine, opened._study_id):
        title = f"{launch.engine} {launch.name}"
        if not _is_reachable(launch):
            found[title] = f"these logs are on {launch.node}, in {launch.folder}\n"
            continue
        launcher, options = _engine_of(launch)
        try:
            texts = launcher.logs(launch.jobs, Path(launch.folder), options)
            found |= {f"{title}: {job}": text for job, text in texts.items()}
            if not texts:
                found[title] = f"nothing yet in {launch.folder}, as far as this machine sees it\n"
        except LaunchError as error:
            found[title] = f"{error}\n"
    return found


def engine_of(name: str) -> Launcher[Any]:
    """An engine by its name; raises EngineError."""
    if name not in LAUNCHERS:
        raise EngineError(f"there is no engine {shown_value(name)}{nearest(name, LAUNCHERS)}")
    return LAUNCHERS[name]


def options_of(name: str, given: Mapping[str, Any]) -> LauncherOptions:
    """An engine's options, checked; raises EngineError with all faults."""
    kind = engine_of(name).options
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        faults = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"]))
            if item["type"] == "missing":
                faults.append(f"{name} needs the option {key}: -o {key}=...")
            elif item["type"] == "extra_forbidden":
                faults.append(f"{name} has no option {shown_value(key)}{nearest(key, kind.model_fields)}")
            else:
                faults.append(f"{key} is {shown_value(item['input'])}: {item['msg']}")
        raise EngineError("\n".join(faults)) from None


def engines() -> list[dict[str, Any]]:
    """All engines with their options, as JSON can hold them."""
    return [
        {"name": name, "summary": launcher.summary, "arguments": _options_of(launcher.options)}
        for name, launcher in LAUNCHERS.items()
    ]


def _options_of(kind: type[LauncherOptions]) -> list[dict[str, Any]]:
    from wdsearch.study.catalog import (  # and with it torch, which who asks for a study's status does not wait for
        NEEDED,
        Argument,
    )

    found = []
    for name, field_ in kind.model_fields.items():
        takes = annotation_of(Parameter(name, Parameter.KEYWORD_ONLY, annotation=field_.annotation))
        default = NEEDED if field_.is_required() else field_.get_default(call_default_factory=True)
        found.append(Argument(name, takes, default).as_dict() | {"about": field_.description or ""})
    return found


def check_shared(launcher: Launcher[Any], home: Home, storage: str | None, tracking: Any = None) -> None:
    """Raise EngineError if workers on several machines could not share the storage, or a study's tracker."""
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
    """Whether a study is given by its file rather than by its name."""
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
