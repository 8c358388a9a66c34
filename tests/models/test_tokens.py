"""What is subtracted from pixels before they become tokens."""

import pytest
import torch

from models import Centre, ZorroModel, preset
from models.tokens import VideoTokens
from tests.small_models import SMALL


def _tokens(centre: Centre) -> VideoTokens:
    torch.manual_seed(0)
    return VideoTokens(
        preset("vit-tiny", num_classes=2, **SMALL | {"stem": "patch", "centre": centre})
    ).eval()


def test_centring_on_motion_removes_what_stands_still() -> None:
    video = torch.randint(0, 100, (2, 2, 32, 32, 3), generator=torch.Generator().manual_seed(0)).float()
    still = torch.randint(0, 100, (2, 1, 32, 32, 3), generator=torch.Generator().manual_seed(1)).float()
    for centre, removes_it in ((Centre.MOTION, True), (Centre.COLOUR, False), (Centre.PICTURE, False)):
        tokens = _tokens(centre)
        assert torch.allclose(tokens(video), tokens(video + still), atol=1e-4) == removes_it


def test_a_mean_picture_is_a_weight_and_is_subtracted() -> None:
    tokens = _tokens(Centre.PICTURE)
    assert tokens.state_dict()["mean"].shape == (32, 32, 3)
    assert "mean" not in _tokens(Centre.COLOUR).state_dict()
    mean = torch.rand(32, 32, 3) * 255
    tokens.mean.copy_(mean)
    video = mean.expand(1, 2, -1, -1, -1)
    expected = _tokens(Centre.COLOUR)(
        torch.full_like(video, 127.5)
    )  # its mean colour: nothing is left either
    torch.testing.assert_close(tokens(video), expected, atol=1e-4, rtol=1e-4)


def test_an_unknown_centre_fails() -> None:
    with pytest.raises(ValueError, match="middle"):
        ZorroModel(preset("vit-tiny", num_classes=2, centre="middle"))
