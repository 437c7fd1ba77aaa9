"""The rule for the parameters that are weights, and so decay: by the layer's type, then by marks, names and shape.

Weights multiply features, and decay shrinks them towards a simpler function. Other parameters are added to features (biases,
positions, tokens, embeddings) or scale them one by one (norm layers, layer scale, rank-1 adapters); to shrink them is no weight
decay. Torch's own layers say by their type which is which, authors by marks (`no_weight_decay()` of timm and Swin,
`_no_weight_decay` of Mamba); in layers that users wrote the words of names and the shape decide. A rule by words can err,
therefore a recipe's `include` and `exclude` come first.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

from wdsearch.errors import BuildError

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
WEIGHT_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
"""Layers of torch whose parameters with `weight` in their names are weights, whatever their shape."""

_END = r"_?(\d*d|\d+)?(layer|ensemble)?s?(\d*d|\d+)?$"
NORM_CLASS = re.compile(rf"(?i)((?<!weight)(?<!spectral)norm|normali[sz]ation|GRN){_END}")
EMBEDDING_CLASS = re.compile(
    rf"(?i)(embed|embedding|embedder|position(al)?(encoding)?|periodic|fourier_?(features?|embedding)){_END}"
)
SCALE_CLASS = re.compile(rf"(?i)(scale|scaler|affine|gain|prelu){_END}")
MAP_CLASS = re.compile(rf"(?i)(linear|conv|dense|projection|expert){_END}")

FAMILIES = {
    "bias": r".*bias(es)?|shifts?|offsets?|intercepts?",
    "embedding": (
        r".*emb(s|ed|eds|edding|eddings)?|.*tokens?|w[pt]e|[ar]?pe|(abs|rel)?pos(emb.*|enc.*|itions?|itional)?"
        r"|registers?|queries|prompts?|latents?|probes?|codebooks?|codevectors?|prototypes?|centroids?|newline"
    ),
    "scale": (
        r".*scales?|scaling|gains?|.*gammas?|betas?|alphas?|lambdas?|temp|temperature|tau|sigma|rho|std|logvar"
        r"|.*norm|ln|bn|gn|affine"
    ),
    "rate of a recurrence": r"log|decay|dt|delta|imag|freqs?|frequency|frequencies",
    "initial state": r"init|initial|h0|c0|hx|cx",
}
"""Words of names of parameters that are no weights, by what they are."""
MAPS = re.compile(
    r"proj|projs?|projections?|projector|mix|mixer|mixing|mlp|net|network|linear|dense|fc|conv|kernels?|attn|attention|gate"
    r"|experts?|head|router|classifier|ffn|encoder|decoder|lora"
)
"""Words after which an earlier word names what is mapped: a `token_mixer` mixes, an `embed_proj` projects."""
WEIGHTS = re.compile(rf"weights?|w|matrix|theta|att|{MAPS.pattern}")
"""Words of names of weights."""


Layers = Mapping[str, nn.Module]


class Place(NamedTuple):
    """A parameter's layer, the path of the layer in the network, and the parameter's name in the layer."""

    layer: nn.Module
    path: str
    own: str

    @property
    def kind(self) -> str:
        """Name of the layer's class, that of a scripted layer before it was scripted."""
        return str(getattr(self.layer, "original_name", type(self.layer).__name__))


def exemption(layers: Layers, path: str, own: str, parameter: nn.Parameter) -> str | None:
    """Reason for which a parameter is no weight, None if it is one; the layer at `path` has it under the name `own`.

    `layers` are those of the network by path, shared ones at each of theirs.

    >>> network = nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(1))
    >>> layers = dict(network.named_modules())
    >>> exemption(layers, "0", "weight", network[0].weight), exemption(layers, "1", "weight", network[1].weight)
    (None, 'of a norm layer')
    """
    place = _place(layers, path, own)
    layer = place.layer
    if isinstance(layer, NORMS) or NORM_CLASS.search(place.kind):
        return "of a norm layer"
    if isinstance(layer, EMBEDDINGS):
        return "embedding"
    if _is_magnitude(layers[path], own):
        return "magnitude of weight norm"
    if isinstance(layer, WEIGHT_LAYERS) and "weight" in _words(place.own):
        return None
    return _vector(place) if parameter.ndim < 2 else _by_name_and_shape(layers, place, parameter)


def _place(layers: Layers, path: str, own: str) -> Place:
    """Place of a parameter; for a parametrized tensor that of the tensor, under its own name."""
    if not isinstance(layers[path], ParametrizationList):
        return Place(layers[path], path, own)
    owner, _, tensor = path.rpartition("parametrizations.")
    owner = owner.removesuffix(".")
    return Place(layers[owner], owner, tensor)


def _is_magnitude(layer: nn.Module, own: str) -> bool:
    """True for the scale that weight norm splits from a weight (Salimans & Kingma 1602.07868); it is treated like a norm's."""
    if own == "original0" and any(isinstance(part, _WeightNorm) for part in layer.children()):
        return True
    return own.endswith("_g") and own.removesuffix("_g") + "_v" in _names_in(layer)


def _vector(place: Place) -> str:
    return "bias" if _family(_words(place.own)) == "bias" else "vector"


def _by_name_and_shape(layers: Layers, place: Place, parameter: nn.Parameter) -> str | None:
    """Reason of a parameter with two or more axes in a layer that is not torch's."""
    own = _words(place.own)
    words = _words(_attribute(place.path)) + own
    named_weight = any(WEIGHTS.fullmatch(word) for word in own)
    if reason := _family(own) or _of_siblings(place):
        return reason
    if _is_embedding(place.kind):
        return "embedding"
    if SCALE_CLASS.search(place.kind):
        return "scale"
    if MAP_CLASS.search(place.kind) and named_weight:
        return None
    if _is_in_embedding(layers, place.path):
        return "embedding"
    if reason := _family(words):
        return reason
    if sum(length > 1 for length in parameter.shape) < 2:
        return "vector"
    return "broadcast over rows" if parameter.shape[0] == 1 and not named_weight else None


def _family(words: list[str]) -> str | None:
    """Family of the last word of a name that belongs to one, None if a map comes after it."""
    if words == ["b"]:
        return "bias"
    for word in reversed(words):
        if MAPS.fullmatch(word):
            return None
        family = next((name for name, pattern in FAMILIES.items() if re.fullmatch(pattern, word)), None)
        if family == "initial state" and WEIGHTS.fullmatch(words[-1]):
            return None  # of the first step, as the `init_weight` of a graph network
        if family:
            return family
    return None


def _of_siblings(place: Place) -> str | None:
    """Family of a name that means something only beside others: r and s of a rank-1 adapter, a query without a key."""
    others = _names_in(place.layer) - {place.own}
    if place.own in ("r", "s") and "weight" in others:
        return "scale"
    queries = "query" in _words(place.own) and not any({"key", "k"} & set(_words(other)) for other in others)
    return "embedding" if queries else None


def _is_embedding(kind: str) -> bool:
    """True for a class that is called an embedding; one of patches is a linear map of pixels."""
    return EMBEDDING_CLASS.search(kind) is not None and "patch" not in kind.lower()


def _is_in_embedding(layers: Layers, path: str) -> bool:
    """True for a layer within one that is called an embedding."""
    parts = path.split(".")
    return any(_is_embedding(Place(layers[".".join(parts[:length])], "", "").kind) for length in range(1, len(parts)))


def _names_in(layer: nn.Module) -> set[str]:
    return {name for name, _ in layer.named_parameters(recurse=False)}


def _attribute(path: str) -> str:
    """Name under which a layer, or the list that it is in, is an attribute: that of `blocks.2.norm.0` is norm."""
    return next((part for part in reversed(path.split(".")) if not part.isdigit()), "")


def _words(name: str) -> list[str]:
    """Words of a name in lower case, without the numbers at their ends: `relPos_h2` is rel, pos, h."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if spaced in ("h0", "c0"):
        return [spaced]
    return [word for part in spaced.split("_") if (word := part.rstrip("0123456789"))]


# -- marks of authors ------------------------------------------------------------------------------------------------


def mark_of(parameter: nn.Parameter) -> str | None:
    """Mark by which its author exempts a parameter: `_no_weight_decay` (Mamba), `_optim` with a decay of 0 (S4).

    >>> parameter = nn.Parameter()
    >>> parameter._no_weight_decay = True
    >>> mark_of(parameter)
    'marked _no_weight_decay'
    """
    for mark in ("_no_weight_decay", "no_weight_decay"):
        if getattr(parameter, mark, False) is True:
            return f"marked {mark}"
    options = getattr(parameter, "_optim", None)
    if isinstance(options, Mapping) and options.get("weight_decay", 1.0) == 0:
        return "marked _optim with weight_decay 0"
    return None


def declared(network: nn.Module) -> dict[str, str]:
    """Reasons of the parameters that `no_weight_decay()` or `no_weight_decay_keywords()` of a network or layer names.

    Names are relative to the module that declares them; a name of a layer stands for all of its parameters. Keywords may be
    anywhere in a name. Raises BuildError if such a method fails.

    >>> class Net(nn.Linear):
    ...     def no_weight_decay(self):
    ...         return {"weight"}
    >>> declared(nn.Sequential(Net(3, 2)))
    {'0.weight': 'named by no_weight_decay() of Net'}
    """
    reasons: dict[str, str] = {}
    for path, module in network.named_modules():
        names, keywords = _declared_by(module, "no_weight_decay"), _declared_by(module, "no_weight_decay_keywords")
        kind = type(module).__name__
        for name, _ in module.named_parameters(remove_duplicate=False) if names or keywords else ():
            full = f"{path}.{name}" if path else name
            if any(name == one or name.startswith(f"{one}.") for one in names):
                reasons[full] = f"named by no_weight_decay() of {kind}"
            elif any(keyword in name for keyword in keywords):
                reasons[full] = f"named by no_weight_decay_keywords() of {kind}"
    return reasons


def _declared_by(module: nn.Module, method: str) -> set[str]:
    """Names from a method, or an attribute, of a module."""
    declaration = getattr(module, method, ())
    try:
        names = declaration() if callable(declaration) else declaration
        return {names} if isinstance(names, str) else set(map(str, names or ()))
    except Exception as error:  # whatever a user's method raises
        text = f"{type(module).__name__}.{method}() fails: {type(error).__name__}: {error}"
        raise BuildError(f"model: {text}; it is to give names of parameters that do not decay") from error


def with_dense_gradients(network: nn.Module) -> nn.Module:
    """The network with dense gradients of its embeddings: AdamW takes no sparse ones, and penalties reach all rows.

    >>> with_dense_gradients(nn.Embedding(3, 2, sparse=True)).sparse
    False
    """
    for layer in network.modules():
        if isinstance(layer, EMBEDDINGS) and layer.sparse:
            layer.sparse = False
    return network
