"""The task of a distillation: material, batches of it, and how near the model comes to its teachers."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.manifests import Item
from datasets.vocabulary import NUM_AUDIOSET_LABELS, everyday_vocabulary
from media.progress import NO_FIGURES, OnProgress
from models.zorro import ZorroModel
from training.batch import TrainingBatch
from training.recipe import Recipe
from training.task import items_of_split

from .batches import DistillationBatches, TaughtClips
from .material import SplitPlan
from .pictures import PictureMaterial, picture_material
from .scores import distillation_scores
from .sounds import SoundMaterial, sound_material
from .targets import CertainLabels, in_vocabulary
from .teachers import AudioTeacher, PictureTeacher, open_audio_teacher, open_picture_teacher


class DistillationTask:
    """Sounds and pictures of files of their own, of which teachers say what is heard and what is seen.

    Raises:
        TeacherError: a teacher is not there.
        ValueError: nothing decodes, or a clip is of a film with its sound.
    """

    def __init__(
        self, recipe: Recipe, items: list[Item], data_dir: Path, cache_dir: Path, on_progress: OnProgress
    ) -> None:
        assert recipe.distillation is not None
        together = [item.path for item in items if item.modality == "both"]
        if together:
            raise ValueError(
                f"{len(together)} clips have sound and picture, the first is {together[0]}; a distillation "
                "learns from sounds and pictures that are files of their own"
            )
        self.recipe, self.how = recipe, recipe.distillation
        self.vocabulary = everyday_vocabulary()
        self.labels = self.vocabulary.bundle_labels()
        self._data_dir = data_dir
        self._clips = {
            split: self._taught(items_of_split(items, split), split, cache_dir, on_progress)
            for split in ("train", "val")
        }
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.maker = DistillationBatches(self._clips["train"], recipe, self.vocabulary, self.generator)
        self.clips_per_step = recipe.num_audio + recipe.num_video

    def _taught(
        self, items: Sequence[Item], split: str, cache_dir: Path, on_progress: OnProgress
    ) -> TaughtClips:
        plan = SplitPlan(
            items=items,
            spec=self.recipe.spec,
            how=self.how,
            seed=self.recipe.seed,
            augment=split == "train",
            cache_dir=cache_dir,
            on_progress=lambda stage, done, total, figures=NO_FIGURES: on_progress(
                f"{stage} {split}", done, total, figures
            ),
        )
        sounds = sound_material(plan, lambda: self._audio_teachers)
        pictures = picture_material(plan, lambda: self._picture_teachers)
        return self._with_targets(items, sounds, pictures)

    def _with_targets(
        self, items: Sequence[Item], sounds: SoundMaterial, pictures: PictureMaterial
    ) -> TaughtClips:
        certain = CertainLabels.of(items, self.vocabulary)
        heard = [
            certain.audio[source] if plain else ()
            for source, plain in zip(sounds.source.tolist(), sounds.is_plain.tolist(), strict=True)
        ]
        seen = [certain.video[source] for source in pictures.source.tolist()]
        size, least = len(self.vocabulary), self.how.certain_probability
        return TaughtClips(
            log_mel=sounds.log_mel,
            audio_targets=in_vocabulary(sounds.probabilities, heard, 0, size, least),
            frames=pictures.frames,
            video_targets=in_vocabulary(pictures.probabilities, seen, NUM_AUDIOSET_LABELS, size, least),
            picture_source=torch.from_numpy(np.array(pictures.source, np.int64)),
        )

    @cached_property
    def _audio_teachers(self) -> list[AudioTeacher]:
        return [open_audio_teacher(self._data_dir / name) for name in self.how.audio_teachers]

    @cached_property
    def _picture_teachers(self) -> list[PictureTeacher]:
        return [open_picture_teacher(name) for name in self.how.video_teachers]

    def prepare(self, model: ZorroModel) -> None:
        """Give the stems the weights of the first teacher of each modality; see `Task`.

        The network for pictures chooses one of its labels; the logits of its softmax are lowered by the mean
        of their log-sum over the training pictures, so that they begin as those of independent probabilities.
        """
        self._audio_teachers[0].start(model)
        video = self._picture_teachers[0]
        video.start(model)
        sample = np.array(self._clips["train"].frames[:256])
        lowered = torch.from_numpy(video.logits(sample)).logsumexp(1).mean()
        classifiers = model.stem_classifiers
        assert classifiers is not None
        assert classifiers.video is not None
        last = [x for x in classifiers.video.modules() if isinstance(x, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.bias.sub_(lowered)

    def batches(self, first_step: int) -> Iterator[list[TrainingBatch]]:
        """See `Task`."""
        for _ in range(first_step, self.recipe.num_steps):
            yield [self.maker.draw()]

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """Agreement with the teachers, by stream."""
        return distillation_scores(model, self._clips["val"], self.vocabulary, self.how.sure_probability)

    def calibrate(self, model: ZorroModel) -> dict[str, float]:  # noqa: ARG002
        """None: probabilities are learned as such."""
        return {}

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {"sampler_rng": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Task`."""
        generator_state: Tensor = state["sampler_rng"]
        self.generator.set_state(generator_state)
