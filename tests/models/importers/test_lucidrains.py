"""State dicts of zorro-pytorch 0.1.1, against the package itself."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import Stream
from models.importers import Compat, LucidrainsConfig, LucidrainsZorro, import_lucidrains, power_spectrogram
from models.mask import POOL_READS
from models.weights import CheckpointError

ALL = (Stream.GLOBAL, Stream.VIDEO, Stream.AUDIO, Stream.FUSION)  # not in the order of their numbers
CONFIG = LucidrainsConfig(
    heads=2,
    dim_head=6,
    return_streams=ALL,
    audio_patch_size=(4, 8),
    video_patch_size=(2, 8, 4),
    video_channels=2,
    win_length=20,
)
SIZES = {"dim": 24, "depth": 2, "num_fusion_tokens": 3}
EXACT_TOLERANCE = {"rtol": 0, "atol": 1e-5}


class Spectrogram(nn.Module):
    """Takes the place of torchaudio's, which has no CPU build; returns the spectrogram that it is given."""

    def __init__(self, *, win_length: int, **_: object) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(win_length))

    def forward(self, spectrogram: Tensor) -> Tensor:
        return spectrogram


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    """zorro_pytorch over a stand-in of torchaudio; `sys.modules` is restored."""
    before = dict(sys.modules)
    torchaudio, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
    transforms.Spectrogram = torchaudio.transforms = Spectrogram
    sys.modules |= {"torchaudio": torchaudio, "torchaudio.transforms": transforms}
    yield importlib.import_module("zorro_pytorch")
    for name in ("torchaudio", "torchaudio.transforms", "zorro_pytorch", "zorro_pytorch.zorro_pytorch"):
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


def _theirs(package: ModuleType, config: LucidrainsConfig = CONFIG, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    model = package.Zorro(
        **SIZES | sizes,
        heads=config.heads,
        dim_head=config.dim_head,
        audio_patch_size=config.audio_patch_size,
        video_patch_size=config.video_patch_size[1:],
        video_temporal_patch_size=config.video_patch_size[0],
        video_channels=config.video_channels,
        spec_win_length=config.win_length,
        return_token_types=tuple(package.TokenTypes(stream.value) for stream in config.return_streams),
    )
    with torch.no_grad():
        for parameter in model.parameters():  # norms too, whose scales would all be one
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def theirs(package: ModuleType) -> nn.Module:
    return _theirs(package)


@pytest.fixture
def weights(theirs: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in theirs.state_dict().items()}


def _inputs(seed: int = 1) -> tuple[Tensor, Tensor]:
    """A spectrogram whose last bin and frames fill no patch, and a video."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 9, 19, generator=generator) ** 2, torch.randn(2, 2, 4, 16, 8, generator=generator)


def test_exact_equals_the_package(theirs: nn.Module, weights: dict[str, Tensor]) -> None:
    audio, video = _inputs()
    ours = import_lucidrains(weights, CONFIG, compat=Compat.EXACT)
    with torch.no_grad():
        want, got = theirs(audio=audio, video=video), ours(audio, video)
    assert tuple(got) == ALL
    assert want.std() > 0.3
    torch.testing.assert_close(torch.stack(list(got.values()), dim=1), want, **EXACT_TOLERANCE)


def test_exact_equals_the_package_at_its_own_defaults(package: ModuleType) -> None:
    config = LucidrainsConfig()
    theirs = package.Zorro(dim=32, depth=1).eval()
    audio, video = torch.rand(1, 65, 40), torch.randn(1, 3, 2, 16, 32)
    ours = import_lucidrains(theirs.state_dict(), config, compat=Compat.EXACT)
    with torch.no_grad():
        want, got = theirs(audio=audio, video=video), ours(audio, video)
    assert tuple(got) == (Stream.AUDIO, Stream.VIDEO, Stream.FUSION)
    torch.testing.assert_close(torch.stack(list(got.values()), dim=1), want, **EXACT_TOLERANCE)


def test_gradients_equal_the_package_s(theirs: nn.Module, weights: dict[str, Tensor]) -> None:
    audio, video = _inputs()
    ours = import_lucidrains(weights, CONFIG, compat=Compat.EXACT)
    sum(x.square().sum() for x in ours(audio, video).values()).backward()
    theirs.zero_grad()
    theirs(audio=audio, video=video).square().sum().backward()
    pairs = {
        "fusion_tokens": "fusion_tokens",
        "audio_tokens.1.weight": "audio_to_tokens.2.weight",
        "pool.kv.weight": "attn_pool.to_kv.weight",
        "blocks.0.narrow.weight": "layers.0.1.3.weight",
    }
    for own, package_name in pairs.items():
        torch.testing.assert_close(
            ours.get_parameter(own).grad, theirs.get_parameter(package_name).grad, rtol=1e-4, atol=1e-4
        )
    assert all(p.grad is not None and p.grad.any() for p in ours.parameters())


def test_fixed_differs_from_exact_where_the_package_leaks(weights: dict[str, Tensor]) -> None:
    exact, fixed = (
        import_lucidrains(weights, CONFIG, compat=compat)(*_inputs())
        for compat in (Compat.EXACT, Compat.FIXED)
    )
    for stream in (Stream.FUSION, Stream.GLOBAL):
        assert torch.equal(exact[stream], fixed[stream])
    for stream in (Stream.AUDIO, Stream.VIDEO):
        assert (exact[stream] - fixed[stream]).abs().max() > 0.01


def test_fixed_equals_the_package_under_the_mask_it_meant(
    theirs: nn.Module, weights: dict[str, Tensor]
) -> None:
    """The package's own attention over its own tokens, with a pool mask of POOL_READS."""
    audio, video = _inputs()
    seen: list[dict[str, Tensor]] = []
    hook = theirs.attn_pool.register_forward_pre_hook(
        lambda _m, _args, options: seen.append(options), with_kwargs=True
    )
    with torch.no_grad():
        theirs(audio=audio, video=video)
        hook.remove()
        num_audio, num_fusion, num_video = 2 * 2, 3, 2 * 2 * 2
        kinds = [Stream.AUDIO] * num_audio + [Stream.FUSION] * num_fusion + [Stream.VIDEO] * num_video
        mask = torch.tensor([[kind in POOL_READS[stream] for kind in kinds] for stream in ALL])
        queries = theirs.return_tokens.expand(2, -1, -1)
        want = theirs.attn_pool(queries, context=seen[0]["context"], attn_mask=mask) + queries
        got = import_lucidrains(weights, CONFIG, compat=Compat.FIXED)(audio, video)
    torch.testing.assert_close(torch.stack(list(got.values()), dim=1), want, **EXACT_TOLERANCE)


def test_fixed_is_pure_bit_for_bit(weights: dict[str, Tensor]) -> None:
    model = import_lucidrains(weights, CONFIG, compat=Compat.FIXED)
    (audio, video), (other_audio, other_video) = _inputs(1), _inputs(2)
    out, noise, swapped = (
        model(audio, video),
        model(audio, other_video * 100),
        model(other_audio * 100, video),
    )
    assert torch.equal(out[Stream.AUDIO], noise[Stream.AUDIO])
    assert torch.equal(out[Stream.VIDEO], swapped[Stream.VIDEO])
    for stream in (Stream.FUSION, Stream.GLOBAL):
        assert not torch.equal(out[stream], noise[stream])
        assert not torch.equal(out[stream], swapped[stream])
    assert torch.equal(out[Stream.AUDIO], model(audio)[Stream.AUDIO])
    assert torch.equal(out[Stream.VIDEO], model(video=video)[Stream.VIDEO])


def test_fixed_is_pure_bit_for_bit_fails_under_exact(weights: dict[str, Tensor]) -> None:
    model = import_lucidrains(weights, CONFIG, compat=Compat.EXACT)
    audio, video = _inputs()
    assert not torch.equal(model(audio, video)[Stream.AUDIO], model(audio, video * 100)[Stream.AUDIO])


def test_no_gradient_flows_between_streams(weights: dict[str, Tensor]) -> None:
    audio, video = (x.requires_grad_() for x in _inputs())
    for compat, leaks in ((Compat.FIXED, False), (Compat.EXACT, True)):
        out = import_lucidrains(weights, CONFIG, compat=compat)(audio, video)
        for stream, foreign in ((Stream.AUDIO, video), (Stream.VIDEO, audio)):
            (gradient,) = torch.autograd.grad(
                out[stream].sum(), foreign, allow_unused=True, retain_graph=True
            )
            assert (gradient is not None) == leaks
            assert not leaks or gradient.any()


def test_an_absent_modality_has_no_output(weights: dict[str, Tensor]) -> None:
    audio, video = _inputs()
    model = import_lucidrains(weights, CONFIG, compat=Compat.FIXED)
    assert tuple(model(audio)) == (Stream.GLOBAL, Stream.AUDIO, Stream.FUSION)
    assert tuple(model(video=video)) == (Stream.GLOBAL, Stream.VIDEO, Stream.FUSION)
    with pytest.raises(ValueError, match="audio, video or both"):
        model()
    with pytest.raises(ValueError, match="compat=exact needs both"):
        import_lucidrains(weights, CONFIG, compat=Compat.EXACT)(audio)


def test_a_file_is_read_without_running_code(weights: dict[str, Tensor], tmp_path) -> None:
    torch.save(weights, tmp_path / "zorro.pt")
    state_dict = torch.load(tmp_path / "zorro.pt", map_location="cpu", weights_only=True)
    audio, video = _inputs()
    one, other = (
        import_lucidrains(x, CONFIG, compat=Compat.FIXED)(audio, video) for x in (weights, state_dict)
    )
    assert all(torch.equal(one[stream], other[stream]) for stream in ALL)


def test_imported_models_own_their_weights_in_float32_and_eval_mode(weights: dict[str, Tensor]) -> None:
    halves = {name: tensor.half() for name, tensor in weights.items()}
    model = import_lucidrains(halves, CONFIG, compat=Compat.FIXED)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    with torch.no_grad():
        model.fusion_tokens.zero_()
    assert halves["fusion_tokens"].any()
    assert "spec.window" in weights  # it was there to be dropped
    assert not any("window" in name for name in model.state_dict())


def test_what_does_not_fit_is_listed(weights: dict[str, Tensor]) -> None:
    weights["norm.alpha"] = weights.pop("norm.gamma")
    del weights["layers.1.0.norm.beta"]
    weights["audio_to_tokens.2.weight"] = torch.zeros(24, 33)
    listed = (
        r"missing=\['layers.1.0.norm.beta', 'norm.gamma'\], unknown=\['norm.alpha'\], "
        r"reshaped=\['audio_to_tokens.2.weight: got \(24, 33\), wanted \(24, 32\)'\]"
    )
    with pytest.raises(CheckpointError, match=listed):
        import_lucidrains(weights, CONFIG, compat=Compat.FIXED)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"heads": 3}, r"attn_pool.to_q.weight: got \(12, 24\), wanted \(18, 24\)"),
        ({"return_streams": ALL[:3]}, r"return_tokens: got \(4, 24\), wanted \(3, 24\)"),
        ({"video_channels": 3}, r"video_to_tokens.2.weight: got \(24, 128\), wanted \(24, 192\)"),
        ({"win_length": 24}, "20 samples, not config.win_length=24"),
    ],
)
def test_another_config_fails(weights: dict[str, Tensor], changes: dict[str, object], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        import_lucidrains(weights, replace(CONFIG, **changes), compat=Compat.FIXED)


def test_other_weights_fail(weights: dict[str, Tensor]) -> None:
    with pytest.raises(
        CheckpointError, match=r"not a state dict .* missing=\['fusion_tokens', 'layers.0.1.3.weight'\]"
    ):
        import_lucidrains({"cls_token": torch.zeros(1, 1, 8)}, CONFIG, compat=Compat.FIXED)
    with pytest.raises(CheckpointError, match="have no bias, these have: norm.beta"):
        import_lucidrains(weights | {"norm.beta": torch.ones(24)}, CONFIG, compat=Compat.FIXED)
    del weights["layers.1.1.3.weight"]
    with pytest.raises(CheckpointError, match="missing=.'layers.1.1.3.weight'"):
        import_lucidrains(weights, CONFIG, compat=Compat.FIXED)
    with pytest.raises(ValueError, match="'almost' is not a valid Compat"):
        LucidrainsZorro(CONFIG, dim=24, depth=1, ff_hidden=8, compat="almost")


def test_inputs_that_fit_no_patch_fail(weights: dict[str, Tensor]) -> None:
    model, (audio, video) = import_lucidrains(weights, CONFIG, compat=Compat.FIXED), _inputs()
    with pytest.raises(
        ValueError, match=r"audio has shape \(2, 3, 19\), wanted .* at least one patch of \(4, 8\)"
    ):
        model(audio[:, :3], video)
    with pytest.raises(ValueError, match=r"audio has shape \(9, 19\)"):
        model(audio[0], video)
    for wrong in (video[:, :, :3], video[:, :, :, :, :3], video[:, :1], video[0], video[:, :, :0]):
        with pytest.raises(
            ValueError, match=r"video has shape .*, wanted \(batch, 2, .*multiples of \(2, 8, 4\)"
        ):
            model(audio, wrong)
    with pytest.raises(ValueError, match=r"one row per clip; got \[1, 2\]"):
        model(audio[:1], video)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"heads": 0}, "at least 1: heads"),
        ({"audio_patch_size": (0, 4), "hop_length": 0}, "at least 1: hop_length, audio_patch_size"),
        ({"return_streams": ()}, "one or more different streams"),
        ({"return_streams": (0, 0)}, "one or more different streams"),
        ({"return_streams": (4,)}, "4 is not a valid Stream"),
    ],
)
def test_config_fails(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(CONFIG, **changes)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_spectrogram_is_the_power_of_a_windowed_dft(power: float) -> None:
    config = replace(CONFIG, n_fft=32, win_length=20, hop_length=7, power=power, pad=3)
    wave = np.random.default_rng(0).standard_normal((2, 100))
    padded = np.pad(np.pad(wave, ((0, 0), (3, 3))), ((0, 0), (16, 16)), mode="reflect")
    window = np.zeros(32)
    window[6:26] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(20) / 20)  # in the middle of the 32 samples
    want = [
        np.abs(np.fft.rfft(padded[:, start : start + 32] * window)) ** power for start in range(0, 107, 7)
    ]
    got = power_spectrogram(torch.from_numpy(wave).float(), config)
    torch.testing.assert_close(got.double(), torch.from_numpy(np.stack(want, axis=-1)), rtol=1e-3, atol=1e-3)


def test_spectrogram_of_the_defaults_has_65_bins_and_fits_the_model() -> None:
    config = LucidrainsConfig()
    spectrogram = power_spectrogram(torch.zeros(1, 600), config)
    assert spectrogram.shape == (1, 65, 51)  # 128 // 2 + 1, 600 // 12 + 1
    model = LucidrainsZorro(config, dim=8, depth=1, ff_hidden=8)
    assert model(spectrogram)[Stream.AUDIO].shape == (1, 8)
