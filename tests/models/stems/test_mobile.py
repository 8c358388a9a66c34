"""Mobile stems: their maps, and where their own classifiers let the logits of each stream begin.

That streams are pure is tested in `test_backbones`, which tests every preset.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import Stream, ZorroConfig, ZorroModel, preset
from models.attention import Pairing
from models.stems import UNKNOWN_LOGIT, EfficientNetLite, MobileNetV3
from models.weights import load_checkpoint, save_checkpoint
from tests.small_models import as_if_trained, random_audio, random_video, settle, small_config, spec_of

AUDIO, VIDEO, NEITHER = slice(0, 2), slice(2, 4), slice(4, 5)
"""Classes of the small model: those that each stem knows, and the trunk's own."""


@pytest.fixture(scope="module")
def config() -> ZorroConfig:
    return small_config("mobile")


@pytest.fixture(scope="module")
def audio(config: ZorroConfig) -> Tensor:
    return random_audio(config)


@pytest.fixture(scope="module")
def video(config: ZorroConfig) -> Tensor:
    return random_video(config)


@pytest.fixture(scope="module")
def new(config: ZorroConfig, audio: Tensor, video: Tensor) -> ZorroModel:
    """As it is made, but for batch norms that have seen the inputs."""
    torch.manual_seed(0)
    model = ZorroModel(config)
    settle(model, audio, video)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def said(new: ZorroModel, audio: Tensor, video: Tensor) -> dict[Stream, Tensor]:
    """What the stems say by themselves of every item."""
    assert new.stem_classifiers is not None
    return {
        Stream.AUDIO: new.stem_classifiers(Stream.AUDIO, new.audio_tokens.map(audio)),
        Stream.VIDEO: new.stem_classifiers(Stream.VIDEO, new.video_tokens.map(video)),
    }


def test_maps_at_full_size() -> None:
    with torch.device("meta"):
        assert MobileNetV3(0.4)(torch.empty(1, 1, 512, 128)).shape == (1, 384, 16, 4)
        for width, depth in ((1.0, 1.0), (1.1, 1.2)):
            assert EfficientNetLite(width, depth)(torch.empty(2, 3, 224, 224)).shape == (2, 1280, 7, 7)


@pytest.mark.parametrize(("width", "depth", "millions"), [(1.0, 1.0, 4.652), (1.1, 1.2, 6.092)])
def test_efficientnet_has_the_parameters_of_the_published_ones(
    width: float, depth: float, millions: float
) -> None:
    """Lite0 and Lite2 with their classifiers of 1,000 labels."""
    with torch.device("meta"):
        found = sum(p.numel() for p in EfficientNetLite(width, depth).parameters()) + 1_281_000
    assert found / 1e6 == pytest.approx(millions, abs=0.001)


def test_frames_go_through_the_video_stem_one_by_one(new: ZorroModel, video: Tensor) -> None:
    both = new.video_tokens.map(video).reshape(4, 2, 1280, 1, 1)
    other = video.clone()
    other[:, 1] = 0
    changed = new.video_tokens.map(other).reshape(4, 2, 1280, 1, 1)
    assert torch.equal(both[:, 0], changed[:, 0])
    assert not torch.equal(both[:, 1], changed[:, 1])


def test_the_video_stem_answers_by_the_mean_of_its_frames(
    new: ZorroModel, video: Tensor, said: dict[Stream, Tensor]
) -> None:
    assert new.stem_classifiers is not None
    by_frame = new.stem_classifiers.video(new.video_tokens.map(video).mean(dim=(2, 3))).reshape(4, 2, 2)
    torch.testing.assert_close(said[Stream.VIDEO], by_frame.mean(dim=1))


def test_a_new_model_answers_with_the_bits_of_its_stems(
    new: ZorroModel, audio: Tensor, video: Tensor, said: dict[Stream, Tensor]
) -> None:
    out = new(audio, video)
    known = {"audio": [(AUDIO, Stream.AUDIO)], "video": [(VIDEO, Stream.VIDEO)]}
    for name in ("audio", "video", "fusion", "overall"):
        logits = getattr(out, name).logits
        expected = torch.full_like(logits, UNKNOWN_LOGIT)
        for classes, stream in known.get(name, known["audio"] + known["video"]):
            expected[:, classes] = said[stream]
        assert torch.equal(logits, expected), name


@pytest.mark.parametrize("stream", [Stream.AUDIO, Stream.VIDEO])
def test_one_modality_leaves_the_classes_of_the_other_unknown(
    stream: Stream, new: ZorroModel, audio: Tensor, video: Tensor, said: dict[Stream, Tensor]
) -> None:
    out = new(audio) if stream == Stream.AUDIO else new(None, video)
    own, other = (AUDIO, VIDEO) if stream == Stream.AUDIO else (VIDEO, AUDIO)
    for output in (out.fusion, out.overall):
        assert torch.equal(output.logits[:, own], said[stream])
        assert (output.logits[:, other] == UNKNOWN_LOGIT).all()
        assert (output.logits[:, NEITHER] == UNKNOWN_LOGIT).all()


def test_fusion_rows_begin_with_the_items_that_they_read(
    new: ZorroModel, audio: Tensor, video: Tensor, said: dict[Stream, Tensor]
) -> None:
    index = {Stream.AUDIO: torch.tensor([0, 0, -1, 2]), Stream.VIDEO: torch.tensor([1, -1, 1, 0])}
    out = new.forward_pairs(audio[:3], video[:2], Pairing(index[Stream.AUDIO], index[Stream.VIDEO]))
    for output in (out.fusion, out.overall):
        for stream, classes in ((Stream.AUDIO, AUDIO), (Stream.VIDEO, VIDEO)):
            for row, item in zip(output.logits[:, classes], index[stream].tolist(), strict=True):
                wanted = said[stream][item] if item >= 0 else torch.full((2,), UNKNOWN_LOGIT)
                torch.testing.assert_close(row, wanted)


def test_rows_without_a_modality_begin_unknown(
    new: ZorroModel, audio: Tensor, video: Tensor, said: dict[Stream, Tensor]
) -> None:
    has_audio = torch.tensor([True, False, True, True])
    has_video = torch.tensor([True, True, False, True])
    out = new(audio, video, has_audio=has_audio, has_video=has_video)
    torch.testing.assert_close(out.fusion.logits[has_audio, AUDIO], said[Stream.AUDIO][has_audio])
    torch.testing.assert_close(out.fusion.logits[has_video, VIDEO], said[Stream.VIDEO][has_video])
    assert (out.fusion.logits[1, AUDIO] == UNKNOWN_LOGIT).all()
    assert (out.fusion.logits[2, VIDEO] == UNKNOWN_LOGIT).all()
    assert not out.audio.logits[1].any()  # a row of zeros, as under every stem


def test_a_trained_head_raises_what_no_stem_knows(config: ZorroConfig, audio: Tensor, video: Tensor) -> None:
    torch.manual_seed(0)
    model = ZorroModel(config).train()
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if n.startswith("heads.")], lr=1.0)
    for _ in range(15):
        loss = sum(
            (getattr(model(audio, video), name).logits - 2).square().mean() for name in ("audio", "fusion")
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = model(audio, video)
    assert (out.audio.logits[:, VIDEO] > -4).all()
    assert (out.fusion.logits[:, NEITHER] > -4).all()


def test_stems_without_classifiers_leave_the_classes_to_the_trunk(audio: Tensor, video: Tensor) -> None:
    torch.manual_seed(0)
    model = ZorroModel(small_config("mobile").without_stem_classifiers()).eval()
    assert model.stem_classifiers is None
    assert not [name for name in model.state_dict() if name.startswith("stem_classifiers")]
    assert model.heads["audio"].classify.weight.any()
    assert model(audio, video).fusion.logits.abs().max() < 2


def test_one_stem_may_classify_alone(audio: Tensor, video: Tensor) -> None:
    torch.manual_seed(0)
    mobile = small_config("mobile").to_dict()["mobile"] | {"video_classes": [0, 0]}
    model = ZorroModel(small_config("mobile", mobile=mobile)).eval()
    out = model(audio, video)
    assert (out.video.logits == UNKNOWN_LOGIT).all()
    assert torch.equal(out.fusion.logits, out.audio.logits)
    assert (out.audio.logits[:, AUDIO] != UNKNOWN_LOGIT).any()


def test_a_checkpoint_gives_the_same_answers(tmp_path: Path, audio: Tensor, video: Tensor) -> None:
    model = as_if_trained(ZorroModel(small_config("mobile")))
    labels = [{"id": x, "label": x, "modalities": ["audio", "video"]} for x in "abcde"]
    save_checkpoint(tmp_path, model, clip_spec=spec_of(model.config).to_dict(), labels=labels)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == model.config
    before, after = model(audio, video), loaded.model(audio, video)
    for name in ("audio", "video", "fusion", "overall"):
        assert torch.equal(getattr(before, name).logits, getattr(after, name).logits)


def test_the_preset_takes_classes_as_json_holds_them() -> None:
    config = preset(
        "mobile", num_classes=1600, mobile={"audio_classes": [0, 527], "video_classes": [527, 1527]}
    )
    assert ZorroConfig.from_dict(config.to_dict()) == config
    assert (config.audio_grid, config.video_grid) == ((16, 4), (2, 7, 7))
