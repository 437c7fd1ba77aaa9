"""Random changes of a study, as text and as a structure."""

import copy
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

FULL = """# every section, every form of a dimension, anchors
study: full
data: &data {name: digits, init_args: {batch_size: 50}, split_seed: 3}
model:
  name: mlp
  init_args: {hidden: [16, 8], activation: "tanh"}
optimizer: {name: adamw, lr: 1e-3, schedule: cosine, warmup: 0.1, betas: [0.9, 0.99], eps: 1e-8, decay: all}
space:
  lr: {low: 3e-4, high: 3e-2, log: true}
  weight_decay: {timescale: [0.01, 10], off: true}
  l2: &l2 {low: 1e-6, high: 0.01, log: true}
  l1: {<<: *l2, high: 0.1, off: true}
  dropout: {low: 0.0, high: 0.6, step: 0.2}
  early_stopping: {low: 2, high: 8, off: true}
  label_smoothing: {choices: [0.0, 0.1]}
  gradient_clip: 1.0
  model.hidden:
    choices:
      - [8]
      - [16, 8]
objective: {minimize: [val_loss, gap], constraints: {gap: {max: 1.0, min: -1}}}
budget: {trials: 4, epochs: 2}
search: {batch: 4, sampler: {name: tpe, n_startup_trials: 3}, pruner: none}
trainer: {accelerator: cpu, precision: 64, threads: 1, population: auto}
metric: accuracy
task: classification
seed: 7
"""

SHORT = """study: short
data: diabetes
model: mlp
optimizer: {name: sgd, momentum: 0.5, nesterov: true}
space: {input_noise: {low: 0, high: 1}, model.dropout: {low: 0.1, high: 0.4}, lr: 0.1}
budget: {trials: 1, epochs: 1}
search: {sampler: qmc, pruner: {name: hyperband, reduction_factor: 3}}
"""

TOKENS = [
    *re.findall(
        r"\S+",
        """~ null .nan .inf -.inf true off yes [] {} [1] {a: 1} '' "1" x -1 0 2 -0.0 1e-6 1e400 1e308 5e-324 0x0 0o7 010 1_0
        !!int !!float !!binary !!timestamp !!set !!omap !!python/object:os.system !mine *l2 *none &l2 & * ? : - , # | > % @
        ` <<: --- ... %YAML 2001-01-01 12:30 "\\ud800" "\\e[2J" "\\x00" é 😀 ∞""",
    ),
    *("\t", "\x00", "\x07", "\x85", "\ufeff", "\u2028", "\u202e", "\ud7ff", "\n", "\r"),
]

NASTY: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**400,
        16**6000,
        0.0,
        -0.0,
        1e-320,
        1e300,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "off", "true", "1", "1e-3", "\ud800", "\x1b[2J", "a" * 10_000, "name", "val_loss", "mlp", "tpe", "none"),
    *([], {}, [[]], [None], [1, 2], [2, 1], [1, 2, 3], [0.0, 1e300], ["a", "a"], {"name": "mlp"}, {"": 1}, {"low": 1}),
    *({"low": 2, "high": 1}, {"low": 1e-300, "high": 1e300, "log": True, "off": True}, {"choices": [[]]}),
    *(
        {"low": 1, "high": 10**300, "step": 10**290},
        {"low": 1, "high": 2**70, "off": True},
        {"timescale": [1e-300, 1e300]},
    ),
    *({"low": 0.1, "high": 1e308, "step": 5e-324}, {"class_path": "no.where"}, {"class_path": ".."}, [[[[[]]]]] * 50),
]


def _place(text: bytes, random: Random) -> slice:
    start = random.randrange(len(text) + 1)
    return slice(start, start + random.choice([1, 1, 1, 2, 5, 30]))


def _cut(text: bytes, random: Random) -> bytes:
    place = _place(text, random)
    return text[: place.start] + text[place.stop :]


def _double(text: bytes, random: Random) -> bytes:
    place = _place(text, random)
    return text[: place.stop] + text[place.start :]


def _swap(text: bytes, random: Random) -> bytes:
    lines = text.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _byte(text: bytes, random: Random) -> bytes:
    place = _place(text, random).start
    return text[:place] + bytes([random.randrange(256)]) + text[place + 1 :]


def _token(text: bytes, random: Random) -> bytes:
    place = _place(text, random)
    token = random.choice(TOKENS).encode("utf-8", "surrogatepass")
    return text[: place.start] + token + text[place.start if random.random() < 0.5 else place.stop :]


def _word(text: bytes, random: Random) -> bytes:
    words = text.split(b" ")
    words[random.randrange(len(words))] = random.choice([*(t.encode("utf-8", "surrogatepass") for t in TOKENS), *words])
    return b" ".join(words)


def _digits(text: bytes, random: Random) -> bytes:
    place = _place(text, random).start
    return text[:place] + random.choice([b"9" * 400, b"9" * 6000, b"1e-9999", b"0x" + b"f" * 6000]) + text[place:]


def _nest(text: bytes, random: Random) -> bytes:
    place, depth = _place(text, random).start, random.choice([3, 30, 3000])
    return text[:place] + random.choice([b"[", b"{a: ", b"- ", b"? ", b"[[],"]) * depth + text[place:]


def _tab(text: bytes, random: Random) -> bytes:
    return text.replace(b"  ", b"\t", random.randrange(1, 9)) if random.random() < 0.5 else text.replace(b" ", b"\t", 3)


def _end(text: bytes, random: Random) -> bytes:
    return text[: _place(text, random).start]


MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    *(_cut, _double, _swap, _byte, _token, _word, _digits, _nest, _tab, _end),
    *(_cut, _swap, _token, _word, _word),
]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a study with each of its keys."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _mutate(study: dict[str, Any], random: Random) -> None:
    """Replace, rename, remove, swap, wrap or add at one place of a study."""
    places = [*_places(study)]
    if not places:
        return
    (holder, key), (other, other_key) = random.choice(places), random.choice(places)
    change = random.choice(["replace", "replace", "replace", "rename", "remove", "swap", "wrap", "add"])
    if change == "replace":
        holder[key] = copy.deepcopy(random.choice(NASTY))
    elif change == "remove":
        del holder[key]
    elif change == "swap":
        holder[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(holder[key])
    elif change == "wrap":
        holder[key] = random.choice([[holder[key]], {"name": holder[key]}, {"value": holder[key]}, str(holder[key])])
    elif isinstance(holder, dict):
        name = random.choice(
            ["off", "low", "timescale", "l1", "model.hidden", "model.", "", "\x1b[31m", "é", f"{key}s"]
        )
        holder[name] = holder.pop(key) if change == "rename" else copy.deepcopy(random.choice(NASTY))
