"""The vocabulary of the everyday model: one table, from which labels of checkpoints and bundles are made.

`labels.csv` has AudioSet's 527 labels, ImageNet's 1,000, and those that neither knows, in the order of the
logits. `groups.csv` has what labels belong to without being labels, `bridges.csv` which pictures show what
makes a sound, and `sources.csv` which labels the folders of known datasets mean. README.md says where the
tables come from, and how to edit them.
"""

from .consistency import NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS
from .tables import Bridge, FolderLabels, LabelGroup, VocabularyError, VocabularyLabel
from .vocabulary import Vocabulary, everyday_vocabulary, read_vocabulary

__all__ = [
    "NUM_AUDIOSET_LABELS",
    "NUM_IMAGENET_LABELS",
    "Bridge",
    "FolderLabels",
    "LabelGroup",
    "Vocabulary",
    "VocabularyError",
    "VocabularyLabel",
    "everyday_vocabulary",
    "read_vocabulary",
]
