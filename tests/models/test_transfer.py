"""Pre-trained weights in models of other labels, lengths and resolutions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models import Masking, Stream, ZorroConfig, ZorroModel, preset
from models.transfer import TransferReport, config_for, transfer
from models.weights import Checkpoint, CheckpointError, float_weights
from tests.small_models import SMALL, as_if_trained, random_audio, random_video, small_config

CLASSIFIERS = {
    f"heads.{s}.classify.{p}" for s in ("audio", "video", "fusion", "overall") for p in ("weight", "bias")
}
AUDIO = random_audio(small_config("vit-tiny"), batch=2)
VIDEO = random_video(small_config("vit-tiny"), batch=2)


def _labels(ids: str) -> list[dict[str, object]]:
    return [{"id": x, "label": x.upper(), "modalities": ["audio"]} for x in ids]


def _checkpoint(ids: str = "abcd", **changes: object) -> Checkpoint:
    """As if trained: no weight or statistic is that of a new model."""
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=len(ids), **SMALL | changes))
    for tensor in float_weights(model).values():
        tensor.copy_(torch.randn_like(tensor).abs() * 0.2 + 0.1)
    return Checkpoint(model.eval(), model.config, {}, _labels(ids))


def _move(
    checkpoint: Checkpoint, config: ZorroConfig, **options: object
) -> tuple[ZorroModel, TransferReport]:
    torch.manual_seed(5)
    model = ZorroModel(config).eval()
    return model, transfer(checkpoint, model, **options)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_an_equal_config_gives_equal_bits_but_for_the_classifiers(stem: str) -> None:
    old = _checkpoint(stem=stem)
    model, report = _move(old, old.config)
    before, after = old.model(AUDIO, VIDEO), model(AUDIO, VIDEO)
    for name in ("audio", "video", "fusion", "overall"):
        assert torch.equal(getattr(before, name).features, getattr(after, name).features)
        assert torch.equal(getattr(before, name).embedding, getattr(after, name).embedding)
        assert not torch.equal(getattr(before, name).logits, getattr(after, name).logits)
    assert (report.resized, set(report.initialised), report.kept_labels) == ({}, CLASSIFIERS, ())
    assert set(report.copied) == float_weights(model).keys() - CLASSIFIERS


def test_classifiers_that_start_anew_are_as_the_model_was_made() -> None:
    old = _checkpoint()
    config = config_for(old.config, num_classes=7)
    model, _ = _move(old, config)
    torch.manual_seed(5)
    made = float_weights(ZorroModel(config))
    for name in CLASSIFIERS:
        assert torch.equal(float_weights(model)[name], made[name])


def test_all_labels_kept_gives_equal_logits() -> None:
    old = _checkpoint()
    model, report = _move(old, old.config, labels=_labels("abcd"))
    assert torch.equal(old.model(AUDIO, VIDEO).fusion.logits, model(AUDIO, VIDEO).fusion.logits)
    assert (report.initialised, report.kept_labels) == ((), ("a", "b", "c", "d"))
    assert set(report.copied) == float_weights(model).keys()


def test_rows_follow_their_labels_by_id() -> None:
    old = _checkpoint("abcd")
    model, report = _move(old, config_for(old.config, num_classes=5), labels=_labels("xdyaz"))
    before, after = old.model(AUDIO, VIDEO).audio.logits, model(AUDIO, VIDEO).audio.logits
    torch.testing.assert_close(after[:, [1, 3]], before[:, [3, 0]])  # d and a
    assert report.kept_labels == ("d", "a")
    assert set(report.initialised) == CLASSIFIERS
    torch.manual_seed(5)
    made = ZorroModel(model.config)
    for new, own in zip(model.heads.values(), made.heads.values(), strict=True):
        assert torch.equal(new.classify.weight[[0, 2, 4]], own.classify.weight[[0, 2, 4]])
        assert torch.equal(new.classify.bias[[0, 2, 4]], own.classify.bias[[0, 2, 4]])


def test_labels_that_cannot_be_matched_fail() -> None:
    old = _checkpoint("abcd")
    with pytest.raises(CheckpointError, match="no label is shared"):
        _move(old, old.config, labels=_labels("wxyz"))
    with pytest.raises(ValueError, match="got 3 labels for a model of 4 classes"):
        _move(old, old.config, labels=_labels("abc"))
    with pytest.raises(ValueError, match="unique, these are not: a"):
        _move(old, old.config, labels=_labels("abca"))
    with pytest.raises(CheckpointError, match="names 0 labels for 4 classes"):
        _move(replace(old, labels=[]), old.config, labels=_labels("abcd"))


def test_positions_on_a_line_are_interpolated_linearly() -> None:
    old = _checkpoint()  # grids: audio 4 x 2, video 1 x 2 x 2
    channels = torch.linspace(1, 2, 32)
    with torch.no_grad():
        old.model.audio_tokens.pos_time.copy_(torch.arange(4.0)[:, None, None] * channels)
        old.model.audio_tokens.pos_frequency.copy_(torch.arange(2.0)[None, :, None] * channels)
    model, report = _move(
        old, config_for(old.config, num_classes=4, audio_shape=(128, 64), video_shape=(6, 32, 32, 3))
    )
    # Twice as many points, each a quarter of a step beside an old one; the ends stay at the ends.
    time = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(model.audio_tokens.pos_time.detach(), time[:, None, None] * channels)
    frequency = torch.tensor([0, 0.25, 0.75, 1])
    torch.testing.assert_close(model.audio_tokens.pos_frequency.detach(), frequency[None, :, None] * channels)
    # One step of video becomes three equal ones.
    assert torch.equal(model.video_tokens.pos_time, old.model.video_tokens.pos_time.expand(3, 1, 32))
    assert report.resized == {
        "audio_tokens.pos_time": ((4,), (8,)),
        "audio_tokens.pos_frequency": ((2,), (4,)),
        "video_tokens.pos_time": ((1,), (3,)),
    }
    assert model(torch.randn(1, 128, 64), torch.zeros(1, 6, 32, 32, 3)).fusion.logits.isfinite().all()


def test_positions_in_space_are_interpolated_bicubically_on_their_grid() -> None:
    old = _checkpoint(video_shape=(2, 48, 96, 3))  # 3 x 6
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(6.0), indexing="ij")
    pattern = 10 * rows + columns**2
    with torch.no_grad():
        old.model.video_tokens.pos_space.copy_(pattern.reshape(1, 18, 1).expand(1, 18, 32))
    model, report = _move(old, config_for(old.config, num_classes=4, video_shape=(2, 96, 48, 3)))
    assert report.resized == {"video_tokens.pos_space": ((3, 6), (6, 3))}
    expected = F.interpolate(pattern[None, None], size=(6, 3), mode="bicubic", align_corners=False)[0, 0]
    found = model.video_tokens.pos_space.detach().reshape(6, 3, 32)
    torch.testing.assert_close(found[..., 0], expected)
    torch.testing.assert_close(found[..., 31], expected)


def test_grids_of_equally_many_points_are_not_taken_for_equal() -> None:
    old = _checkpoint(video_shape=(2, 32, 128, 3))  # 2 x 8
    config = config_for(old.config, num_classes=4, video_shape=(2, 64, 64, 3))  # 4 x 4
    model, report = _move(old, config)
    assert report.resized == {"video_tokens.pos_space": ((2, 8), (4, 4))}
    assert model.video_tokens.pos_space.shape == old.model.video_tokens.pos_space.shape
    assert not torch.equal(model.video_tokens.pos_space, old.model.video_tokens.pos_space)


def test_a_conv_stem_takes_another_patch_and_so_another_grid() -> None:
    old = _checkpoint(stem="conv")
    _, report = _move(old, replace(old.config, patch_size=(16, 8)))  # the same kernels at other strides
    assert report.resized == {"audio_tokens.pos_frequency": ((2,), (4,))}
    old = _checkpoint(stem="patch")  # one kernel per patch: another kernel
    with pytest.raises(
        CheckpointError, match=r"audio_tokens.embed.weight: got \(32, 1, 16, 16\), wanted \(32, 1, 16, 8\)"
    ):
        _move(old, replace(old.config, patch_size=(16, 8)))


def test_the_mean_picture_is_resized_bilinearly() -> None:
    old = _checkpoint(centre="picture")
    ramp = torch.arange(32.0)[None, :, None] + torch.tensor([0.0, 50.0, 100.0])
    old.model.video_tokens.mean.copy_(ramp.expand(32, 32, 3))
    model, report = _move(old, config_for(old.config, num_classes=4, video_shape=(2, 64, 64, 3)))
    columns = (torch.arange(64.0) / 2 - 0.25).clamp(0, 31)
    expected = (columns[None, :, None] + torch.tensor([0.0, 50.0, 100.0])).expand(64, 64, 3)
    torch.testing.assert_close(model.video_tokens.mean, expected)
    assert report.resized["video_tokens.mean"] == ((32, 32), (64, 64))
    same, report = _move(old, config_for(old.config, num_classes=4))
    assert torch.equal(same.video_tokens.mean, old.model.video_tokens.mean)
    assert "video_tokens.mean" in report.copied


def test_a_mean_picture_that_shrinks_is_averaged() -> None:
    old = _checkpoint(centre="picture", video_shape=(2, 64, 64, 3))
    stripes = ((torch.arange(64) % 4 == 0) * 100.0)[None, :, None].expand(64, 64, 3)
    old.model.video_tokens.mean.copy_(stripes)
    model, _ = _move(old, config_for(old.config, num_classes=4, video_shape=(2, 16, 16, 3)))
    inner = model.video_tokens.mean[:, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 25.0))


def test_a_failed_transfer_lists_what_does_not_fit_and_changes_nothing() -> None:
    old = _checkpoint()
    model = ZorroModel(replace(old.config, num_fusion_tokens=5, projection_dim=8))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        transfer(old, model)
    for words in (
        "fusion_tokens: got (3, 32), wanted (5, 32)",
        "heads.audio.project.weight: got (16, 32), wanted (8, 32)",
    ):
        assert words in str(caught.value)
    with pytest.raises(CheckpointError, match="missing=\\['video_tokens.mean'\\]"):
        transfer(old, ZorroModel(replace(old.config, centre="picture")))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_heads": 4}, "num_heads: got 2, wanted 4"),
        ({"masking": Masking.NONE}, "masking: got zorro, wanted none"),
        ({"depth": 3}, "depth: got 2, wanted 3"),
    ],
)
def test_another_trunk_fails_even_where_shapes_agree(changes: dict[str, object], match: str) -> None:
    old = _checkpoint()
    with pytest.raises(CheckpointError, match=match):
        transfer(old, ZorroModel(replace(old.config, **changes)))


def test_a_config_for_another_task() -> None:
    old = _checkpoint(drop_path_rate=0.1).config
    new = config_for(old, num_classes=9, audio_shape=(128, 32))
    assert new == replace(old, num_classes=9, audio_shape=(128, 32))
    assert config_for(old, num_classes=9, video_shape=(4, 64, 64, 3)).video_grid == (2, 4, 4)
    with pytest.raises(ValueError, match="audio_shape"):
        config_for(old, num_classes=9, audio_shape=(100, 32))
    with pytest.raises(ValueError, match="num_classes"):
        config_for(old, num_classes=0)


def test_a_report_reads_as_a_line() -> None:
    old = _checkpoint()
    model, report = _move(
        old, config_for(old.config, num_classes=2, video_shape=(2, 48, 64, 3)), labels=_labels("ax")
    )
    assert len(report.copied) + len(report.resized) + len(report.initialised) == len(float_weights(model))
    line = str(report)
    assert "resized video_tokens.pos_space 2x2 to 3x4" in line
    assert f"copied {len(report.copied)} weights" in line
    assert "kept 1 labels" in line


def test_streams_stay_pure_after_a_transfer() -> None:
    old = _checkpoint()
    model, _ = _move(old, config_for(old.config, num_classes=2))
    assert torch.equal(
        model.forward_stream(Stream.AUDIO, AUDIO).logits, model(AUDIO, 255 - VIDEO).audio.logits
    )


def _mobile_checkpoint() -> Checkpoint:
    model = as_if_trained(ZorroModel(small_config("mobile")))
    return Checkpoint(model, model.config, {}, _labels("abcde"))


def test_stems_lose_their_classifiers_for_another_task() -> None:
    old = _mobile_checkpoint()
    model, report = _move(old, config_for(old.config, num_classes=7))
    assert set(report.initialised) == CLASSIFIERS
    assert set(report.copied) == float_weights(model).keys() - CLASSIFIERS
    assert model.stem_classifiers is None
    audio = random_audio(old.config)
    assert torch.equal(model.audio_tokens(audio), old.model.audio_tokens(audio))
    assert model(audio).audio.logits.shape == (4, 7)


def test_stems_of_an_equal_config_keep_their_classifiers() -> None:
    old = _mobile_checkpoint()
    model, report = _move(old, old.config)
    assert "stem_classifiers.audio.0.weight" in report.copied
    assert set(report.initialised) == CLASSIFIERS
    assert not model.heads["audio"].classify.weight.any()


def test_classifiers_of_stems_that_a_checkpoint_lacks_stay_as_they_were_made() -> None:
    made = as_if_trained(ZorroModel(small_config("mobile").without_stem_classifiers()))
    model, report = _move(Checkpoint(made, made.config, {}, _labels("abcde")), small_config("mobile"))
    added = {name for name in float_weights(model) if name.startswith("stem_classifiers.")}
    assert added
    assert set(report.initialised) == CLASSIFIERS | added
