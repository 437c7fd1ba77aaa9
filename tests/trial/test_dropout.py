"""Dropout layers and attention that stand in for torch's: the same numbers in eval mode, the same masks alone and fused."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from wdsearch.noise import NoiseStream
from wdsearch.trial.dropout import LAYERS, Dropout, MultiheadAttention, replace_dropout

SHAPES = {
    nn.Dropout: [(5,), (64, 50)],
    nn.Dropout1d: [(40, 9), (16, 40, 9)],
    nn.Dropout2d: [(16, 40, 9), (16, 40, 5, 5)],
    nn.Dropout3d: [(40, 3, 3, 3), (16, 40, 3, 3, 3)],
    nn.AlphaDropout: [(64, 50)],
    nn.FeatureAlphaDropout: [(64, 50), (16, 40, 5, 5)],
}


def noise() -> NoiseStream:
    return NoiseStream(3, "dropout")


@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input")
@pytest.mark.parametrize(
    ("kind", "shape"), [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes], ids=str
)
def test_a_layer_drops_whole_what_torchs_layer_drops_whole(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    """Entries that are dropped or kept together are the same in torch; so are the values, given what was dropped."""
    inputs = torch.ones(shape, dtype=torch.float64)
    own = replace_dropout(kind(0.5), noise())(inputs)
    groups = [tuple(group.shape) for group in _blocks(own, inputs)]
    torch.manual_seed(0)
    theirs = kind(0.5)(inputs)
    assert groups == [tuple(group.shape) for group in _blocks(theirs, inputs)]
    for group in _blocks(own, inputs):
        assert len(group.unique()) == 1, "a channel is dropped as a whole"
    torch.testing.assert_close(own.unique(), theirs.unique() if len(theirs.unique()) == 2 else own.unique())


def _blocks(outputs: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Parts of the output that share one fate, as far as they can be told apart."""
    lead = 1 if outputs.ndim == 1 else 2
    flat = outputs.reshape(*outputs.shape[:lead], -1)
    return list(flat.reshape(-1, flat.shape[-1]))


def test_in_bfloat16_the_mask_is_that_of_float32() -> None:
    """Numbers of bfloat16's own would be 256: a small rate would drop a multiple of itself, or nothing."""
    dropped = [
        Dropout(0.001, noise())(torch.ones(1000, 300, dtype=kind)) == 0 for kind in (torch.float32, torch.bfloat16)
    ]
    assert torch.equal(*dropped)
    assert dropped[0].double().mean().item() == pytest.approx(0.001, rel=0.2)


def test_every_layer_of_torch_that_drops_is_replaced() -> None:
    kinds = {kind for name, kind in vars(nn).items() if "Dropout" in name and isinstance(kind, type)}
    assert kinds <= set(LAYERS)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 10}], ids=["one size", "own sizes"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("more", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("masked", ["none", "bool", "float", "per head", "padding", "unbatched"])
def test_attention_is_torchs(batch_first: bool, sizes: Any, bias: bool, more: Any, masked: str) -> None:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, 0.3, bias, batch_first=batch_first, **sizes, **more).double().eval()
    own = replace_dropout(copy.deepcopy(plain), noise())
    assert isinstance(own, MultiheadAttention)
    assert [name for name, _ in own.named_parameters()] == [name for name, _ in plain.named_parameters()]
    shapes = [(5, 8), (7, sizes.get("kdim", 8)), (7, sizes.get("vdim", 8))]
    batch: tuple[int, ...] = () if masked == "unbatched" else (4,)
    given = [torch.randn(*batch, *shape, dtype=torch.float64) for shape in shapes]
    if batch and not batch_first:
        given = [rows.transpose(0, 1) for rows in given]
    masks: dict[str, Any] = {
        "bool": {"attn_mask": torch.rand(5, 7) < 0.3},
        "float": {"attn_mask": torch.randn(5, 7, dtype=torch.float64)},
        "per head": {"attn_mask": torch.randn(8, 5, 7, dtype=torch.float64)},
        "padding": {"key_padding_mask": torch.arange(7).expand(4, 7) >= torch.tensor([[7], [5], [3], [6]])},
        "unbatched": {"key_padding_mask": torch.arange(7) >= 5},
    }
    for need in ({"need_weights": False}, {"need_weights": True}, {"average_attn_weights": False}):
        mine, theirs = own(*given, **masks.get(masked, {}), **need), plain(*given, **masks.get(masked, {}), **need)
        torch.testing.assert_close(mine[0], theirs[0], rtol=1e-10, atol=1e-12)
        assert (mine[1] is None) == (theirs[1] is None)
        if mine[1] is not None:
            torch.testing.assert_close(mine[1], theirs[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_transformer_encoder_is_torchs_in_eval_mode(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.4, batch_first=True, norm_first=norm_first)
    plain = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()
    own = replace_dropout(copy.deepcopy(plain), noise())
    assert sum(isinstance(part, Dropout) for part in own.modules()) == 2 * 4
    inputs = torch.randn(3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(own(inputs), plain(inputs), rtol=1e-10, atol=1e-12)


def test_a_layer_in_two_places_stays_one() -> None:
    shared = nn.Dropout(0.1)
    network = replace_dropout(nn.Sequential(shared, nn.Linear(2, 2), shared), noise())
    assert network[0] is network[2]
